"""The record of a run: the events that the engine emits, and their readers."""
