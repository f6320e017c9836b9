"""Ask a model: one Protocol (`lm`), one module for each kind of provider, one table of names (`registry`)."""
