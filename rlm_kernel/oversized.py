"""What is read of a message that is too large: a kernel may send any amount, and the host has to stay small.

Parsed JSON takes up to thirty times the room of its text, a long text four times. So of a large message only the two
ends are held while it arrives, and what is held is measured before it is parsed. Of a stream or a display the two ends
are read, of everything else a word that says how large it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

ALWAYS_READ = 2_000_000
"""Bytes of a message that is parsed without a look."""

MOST_ROOM = 100_000_000
"""Bytes that a parsed message may take."""

UNREAD = "unread"
"""The key under which a content says how many of its bytes were not read. Only we write it."""

_ITEM_ROOM = 64
_STREAM_HEAD = 8_000_000
_STREAM_TAIL = 2_000_000
_LONGEST_ESCAPE = 12
_SHOWN = ("display_data", "execute_result")
_PLAIN = re.compile(rb'"text/plain": ?"')
_TEXTS = re.compile(rb'"[^"]*"?')


class Part:
    """A part of a message as it arrives: whole, or its two ends when it is larger than they are.

    Args:
        size: in bytes.
        head, tail: what is held of a larger one, in bytes.

    Attributes:
        size: as given.
        head: the beginning, or everything.
        tail: the end; empty when `head` is everything.
    """

    __slots__ = ("_come", "_head", "_tail", "head", "size", "tail")

    def __init__(self, size: int, head: int | None = None, tail: int | None = None) -> None:
        self.size = size
        self.head, self.tail = bytearray(), bytearray()
        self._head, self._tail = _STREAM_HEAD if head is None else head, _STREAM_TAIL if tail is None else tail
        if size <= self._head + self._tail:
            self._head, self._tail = size, 0
        self._come = 0

    @classmethod
    def of(cls, data: bytes) -> Part:
        """What would be held of this."""
        part = cls(len(data))
        part.add(memoryview(data))
        return part

    @property
    def is_whole(self) -> bool:
        """Whether everything is held."""
        return self.size == len(self.head)

    def add(self, data: memoryview) -> None:
        """Take the next piece."""
        room = self._head - len(self.head)
        if room > 0:
            self.head += data[:room]
        # The tail begins where the part has that many bytes left.
        skipped = max(0, self.size - self._tail - self._come)
        if self._tail and skipped < len(data):
            self.tail += data[skipped:]
        self._come += len(data)


def content_of(kind: str, content: bytes | Part) -> Any:
    """The content of a message, or what stands in for it.

    Args:
        kind: the type of the message.
        content: its JSON.

    Raises:
        ValueError: it is no JSON, or nothing can stand in for it.
        KeyError, TypeError: it is no content of this type.
    """
    part = content if isinstance(content, Part) else Part.of(content)
    why = f"This has {part.size:,} bytes, too many to be read."
    try:
        if part.is_whole and fits(part.head):
            return _parsed(part.head)
        if not part.head.startswith(b"{"):
            raise ValueError("no JSON object")
        if not part.is_whole and kind == "stream":
            return _two_ends(part)
        if not part.is_whole and kind in _SHOWN and (shown := _ends_of_display(part)) is not None:
            return shown
    except RecursionError:
        why = "This is nested too deeply to be read."
    return {**_stand_in(kind, why), UNREAD: part.size}


def fits(data: bytes | bytearray, room: int | None = None) -> bool:
    """Whether JSON of this text takes no more than `room` bytes when it is parsed; None: `MOST_ROOM`."""
    room = MOST_ROOM if room is None else room
    if len(data) <= ALWAYS_READ and room == MOST_ROOM:
        return True
    left = (room - 2 * len(data)) // _ITEM_ROOM
    # Each value follows a comma, a bracket or a colon; within texts they count for nothing, which is found out last.
    if _items(data) <= left:
        return True
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    return bare.count(b'"') // 2 <= left and _items(_TEXTS.sub(b"", bare)) <= left


def _items(data: bytes | bytearray) -> int:
    return sum(map(data.count, (b",", b"[", b"{", b":")))


def _parsed(content: bytearray) -> Any:
    """The JSON, without a claim that something of it was not read: whoever sent it cannot know."""
    value = json.loads(content)
    if isinstance(value, dict):
        value.pop(UNREAD, None)
    return value


def _two_ends(part: Part) -> dict[str, Any]:
    """A stream without the middle of its text. The cuts may fall into an escape sequence, or into a character."""
    size = len(part.head)
    head = _first_that_is_json(part.head[: size - cut] + b'"}' for cut in range(_LONGEST_ESCAPE))
    tail = _first_that_is_json(b'{"text": "' + part.tail[cut:] for cut in range(_LONGEST_ESCAPE))
    unread = part.size - size - len(part.tail)
    return {"name": head["name"], "text": _joined(head["text"], unread, tail["text"]), UNREAD: unread}


def _ends_of_display(part: Part) -> dict[str, Any] | None:
    """A display whose plain text is what is large, without the middle of it; None for any other."""
    text = _PLAIN.search(part.head[:1_000])
    if text is None:
        return None
    with suppress(ValueError, KeyError, TypeError):
        opening, size = b'{"data": {"text/plain": "', len(part.head)
        head = _first_that_is_json(
            opening + part.head[text.end() : size - cut] + b'"}}' for cut in range(_LONGEST_ESCAPE)
        )
        tail = _first_that_is_json(opening + part.tail[cut:] for cut in range(_LONGEST_ESCAPE))
        unread = part.size - size - len(part.tail)
        data = {"text/plain": _joined(head["data"]["text/plain"], unread, tail["data"]["text/plain"])}
        return {"metadata": {}, "execution_count": 0, **tail, "data": data, UNREAD: unread}
    return None


def _joined(head: str, unread: int, tail: str) -> str:
    return f"{head}\n… {unread:,} bytes were left out here …\n{tail}"


def _first_that_is_json(texts: Iterable[bytes | bytearray]) -> dict[str, Any]:
    for text in texts:
        with suppress(ValueError):
            return dict(json.loads(text))
    raise ValueError("not a stream")


def _stand_in(kind: str, why: str) -> dict[str, Any]:
    """A content of the same type that says so instead."""
    if kind in _SHOWN:
        return {"data": {"text/plain": f"({why})"}, "metadata": {}, "execution_count": 0}
    if kind in ("error", "execute_reply"):
        return {"status": "error", "ename": "Oversized", "evalue": why, "traceback": [f"Oversized: {why}"]}
    raise ValueError(why)
