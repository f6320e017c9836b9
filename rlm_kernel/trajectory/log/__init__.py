"""The log of a run: its lines, writing and reading them, and what is kept out of them."""
