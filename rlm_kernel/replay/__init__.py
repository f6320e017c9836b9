"""Replay a recorded run: its kernel, its cells, the recorded answers, and where the replay differs."""
