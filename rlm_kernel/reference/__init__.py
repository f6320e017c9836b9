"""What programs that were written for the reference import from it, besides the names that the engine uses itself."""
