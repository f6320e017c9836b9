"""Ask a model: one interface (`base`), one module for each kind of provider, one table of names (`registry`)."""
