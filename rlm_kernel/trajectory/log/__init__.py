"""The log of a run: its lines, the file, reading it back, and what is kept out of it."""
