"""ZeroMQ's wire protocol on asyncio: what is read is bounded, and what is unsent is known."""
