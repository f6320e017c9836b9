"""What was typed in earlier chats: a file of the user's state folder, which only the user can read."""

from __future__ import annotations

import os
from pathlib import Path

from prompt_toolkit.history import FileHistory, History, InMemoryHistory

MAX_BYTES = 1_000_000
"""Of the file. A longer one loses its older half when a chat begins."""

FOLDER, FILE = "rlm-kernel", "chat-history"


def path_of_history() -> Path:
    """Where it is."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / FOLDER / FILE


def open_history() -> History:
    """The history. If the file cannot be used, it lives as long as this chat."""
    path = path_of_history()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+b") as file:
            os.fchmod(file.fileno(), 0o600)
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                file.seek(-MAX_BYTES // 2, os.SEEK_END)
                newest = file.read().partition(b"\n\n#")[2]
                file.seek(0)
                file.truncate()
                file.write(b"\n#" + newest)
        return FileHistory(path)
    except OSError:
        return InMemoryHistory()
