"""The limits of the gateway. A caller can lower them, and cannot raise them."""

from __future__ import annotations

MAX_SPAN_LINES = 200
MAX_SPAN_BYTES = 8192
"""Of UTF-8."""
MAX_CHUNK_LINES = 200
MAX_CHUNKS = 50
"""Of one `chunk.create`."""
MAX_LISTED = 1000
"""Entries of one list or manifest."""
MAX_LIST_DEPTH = 10
MAX_HASHED_BYTES = 1 << 26
"""Of all files of one list or manifest. Later files have no hash."""
MAX_FILE_BYTES = 1 << 24
"""A larger file is listed, and cannot be read or searched."""
MAX_RESULTS = 10
"""Of one search."""
SNIPPET_CHARACTERS = 200
MAX_QUERY_CHARACTERS = 1000

MAX_CODE_BYTES = 10_240
EXEC_TIMEOUT_MS = 5000
MAX_EXEC_TIMEOUT_MS = 30_000
MAX_EXEC_MEMORY_MB = 256
MAX_EXEC_OUTPUT_BYTES = 1 << 20
MAX_TASK_CHARACTERS = 100_000
MAX_COMPLETE_ITERATIONS = 10
MAX_RUNS = 8
"""Of `complete` at the same time, in one gateway: each has a kernel."""
MAX_SUMMARY_CHARACTERS = 2000

MAX_SESSIONS = 1000
"""Live sessions of one gateway."""
MAX_HANDLES = 1000
"""Of one session. The oldest is dropped for a new one."""
MAX_ROOTS = 100
MAX_PATH_CHARACTERS = 4096

SESSION_DEPTH = 10
SESSION_ITERATIONS = 30
SESSION_TOOL_CALLS = 100
SESSION_TIMEOUT_MS = 300_000
SESSION_OUTPUT_BYTES = 10_485_760
