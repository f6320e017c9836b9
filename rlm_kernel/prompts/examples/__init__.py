"""Few-shot examples of the small profile, by the kind of context."""
