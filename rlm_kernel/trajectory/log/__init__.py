"""The log of a run: its lines, writing and reading them, and what is kept out of them."""

FOLDER = "rlm_logs"
"""Where the command line and the magics keep runs, below the working directory."""
