"""What a reader finds in a file, and the bounds within which it looks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

MAX_MEMBERS = 10_000
"""Files that one archive or mailbox may hold."""

MAX_NESTED = 3
"""Archives within each other."""

MAX_DOCUMENT_BYTES = 250_000_000
"""Of the text of one document, and of the files that an archive holds together."""

LOG_NOT_READ = "its write-ahead log was not read: rows that are only there are old or missing (close its program first)"
"""Of an SQLite database."""

_PIECE = 1 << 16
_PIECE_SECONDS = 0.1
_FIRST = 20  # of what is added is sent at once: what comes next may take all the time


class UnreadError(ValueError):
    """A file cannot be read as what it is. The message says why, without a full stop."""


@dataclass(slots=True)
class Reading:
    """One file that is being read.

    Attributes:
        room: bytes of text that may still be found.
        tell: called with the kind, the member and the text, as soon as it is found. Kinds: `pieces` of a text; `texts`:
            its end; `whole`: a text in place of the pieces; `unread`: why a member is not read; `notes` about a text.
        unpacked: bytes of members that may still be unpacked.
        members: how many may still come.
    """

    room: int
    tell: Callable[[str, str, str], object]
    unpacked: int = MAX_DOCUMENT_BYTES
    members: int = MAX_MEMBERS


class Lines:
    """A text that is put together up to a limit, and sent in pieces while it grows.

    Args:
        room: how many characters it may have.
        send: called with each piece.

    Attributes:
        room: how many more there may be.
        is_full: whether the limit was reached; the text is cut there.
        is_empty: whether nothing was added.
        is_replaced: whether what was sent is no part of the text, see `replace`.
    """

    def __init__(self, room: int, send: Callable[[str], object]) -> None:
        self._send = send
        self._all = self.room = room
        self._pieces: list[str] = []
        self._size = self._added = 0
        self._sent = time.monotonic()
        self.is_full = self.is_replaced = False
        self.is_empty = True

    def add(self, text: str) -> bool:
        """Append a text; returns whether there is room for more."""
        if text:
            self._pieces.append(text[: self.room])
            self.is_full = self.is_full or len(text) > self.room
            self.room -= len(self._pieces[-1])
            self._size += len(self._pieces[-1])
            self.is_empty = False
        self._added += 1
        soon = self._added <= _FIRST or time.monotonic() - self._sent > _PIECE_SECONDS
        if self._size > _PIECE or (self._size and soon):
            self._send(self.rest())
        return not self.is_full

    write = add  # of a file, for the module csv

    def replace(self, text: str) -> bool:
        """Take a text in place of all that was added; returns whether there is room for more."""
        self._pieces, self.room = [text[: self._all]], self._all - min(len(text), self._all)
        self.is_replaced, self.is_empty, self.is_full = True, not text, len(text) > self._all
        return not self.is_full

    def rest(self) -> str:
        """What was not sent yet; it counts as sent then."""
        text = "".join(self._pieces)
        self._pieces.clear()
        self._size, self._sent = 0, time.monotonic()
        return text
