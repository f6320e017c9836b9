"""One live kernel: its process and channels, the guest inside it, and the session that runs cells in it."""
