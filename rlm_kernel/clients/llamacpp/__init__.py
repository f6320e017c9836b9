"""A local model: client, server process, and weights."""
