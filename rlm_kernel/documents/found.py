"""What a reader finds in a file, and the bounds within which it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MAX_MEMBERS = 10_000
"""Files that one archive or mailbox may hold."""

MAX_NESTED = 3
"""Archives within each other."""

MAX_DOCUMENT_BYTES = 250_000_000
"""Of the text of one document, and of the files that an archive holds together."""


class UnreadError(ValueError):
    """A file cannot be read as what it is. The message says why, without a full stop."""


@dataclass(slots=True)
class Reading:
    """One file that is being read.

    Attributes:
        room: bytes of text that may still be found.
        tell: called with the kind (`texts`, `unread`, `notes`), the member and the text, as soon as it is found.
        unpacked: bytes of members that may still be unpacked.
        members: how many may still come.
    """

    room: int
    tell: Callable[[str, str, str], object]
    unpacked: int = MAX_DOCUMENT_BYTES
    members: int = MAX_MEMBERS


class Lines:
    """A text that is put together up to a limit.

    Args:
        room: how many characters it may have.

    Attributes:
        is_full: whether the limit was reached; the text is cut there.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._pieces: list[str] = []
        self.is_full = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added."""
        return not self._pieces

    def add(self, text: str) -> bool:
        """Append a text; returns whether there is room for more."""
        self._pieces.append(text[: self._room])
        self.is_full = self.is_full or len(text) > self._room
        self._room -= min(len(text), self._room)
        return not self.is_full

    def __str__(self) -> str:
        return "".join(self._pieces)
