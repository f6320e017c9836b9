"""The record of a run: the events the engine emits, and their readers."""
