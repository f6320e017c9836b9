"""The limit for the files of one run together: its log, notebooks, input, prompts and pictures."""

from __future__ import annotations

import threading

USUAL_BYTES = 2**30
"""The default limit of a run."""

MIN_BYTES = 2**16
"""A smaller limit would not hold the first line of a log."""

LAST_SHARE = 16
"""This part of the quota is kept for the clipped lines that end a log."""


class Quota:
    """Counts the bytes of all files of a run. May be used by several threads.

    Args:
        limit: bytes; None: no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self._taken = 0
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, size: int, *, last: bool = False) -> bool:
        """Whether `size` bytes may be written, which are then counted. `last`: from the share kept for the end."""
        with self._lock:
            if not self._fits(size, last=last):
                return False
            self._taken += size
            return True

    def replace(self, name: str, size: int) -> bool:
        """Like `take`, for a file that is replaced several times: only its latest size counts."""
        with self._lock:
            if not self._fits(size - self._files.get(name, 0), last=False):
                return False
            self._taken += size - self._files.get(name, 0)
            self._files[name] = size
            return True

    def _fits(self, size: int, *, last: bool) -> bool:
        if self.limit is None:
            return True
        return self._taken + size <= self.limit - (0 if last else self.limit // LAST_SHARE)
