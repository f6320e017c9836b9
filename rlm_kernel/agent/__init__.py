"""Conversations: an agent is one kernel, one log and one notebook; each message is a run of the engine."""
