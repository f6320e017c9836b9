"""Messages of a kernel as they arrive, frame by frame, within a bound on memory.

A kernel may send any amount. Parsed JSON takes up to thirty times the memory of its text, a long text four times. So of
a large message only the two ends are held while it arrives, and its memory is estimated before it is parsed. Of a large
stream or display the two ends are parsed; other large messages are replaced by a note of their size. The signature is
checked over all bytes, held or not.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

ALWAYS_READ = 2_000_000
"""Bytes of a message that is parsed without an estimate."""

MAX_PARSED_BYTES = 100_000_000
"""Bytes that a parsed message may take."""

UNREAD = "unread"
"""The key under which a content says how many of its bytes were not read. Only this module writes it."""

_ITEM_ROOM = 64
_STREAM_HEAD = 8_000_000
_STREAM_TAIL = 2_000_000
_MAX_ESCAPE = 12
_SHOWN = ("display_data", "execute_result")
_PLAIN = re.compile(rb'"text/plain": ?"')
_TEXTS = re.compile(rb'"[^"]*"?')

MAX_BUFFERS_BYTES = 42_000_000
"""Of all buffers of a message: a question and its pictures, see `protocol.MAX_QUESTION_BYTES`."""
MAX_BUFFERS = 200
MAX_HEADER_BYTES = 1_000_000
"""Of the header, of its parent and of the metadata, each."""
MAX_SIGNATURE_BYTES = 1_000
MAX_REPLY_BYTES = 2_000_000
"""Of the content of a message on shell or control."""

UNREADABLE = "rlm_unreadable"
"""The type of the message that replaces a signed one that cannot be read. Its content says why."""

_DELIMITER = b"<IDS|MSG>"
_SIGNATURE, _HEADER, _PARENT, _METADATA, _CONTENT = range(5)

OnMessage = Callable[[dict[str, Any]], None]


class Part:
    """A part of a message as it arrives: whole, or its two ends when it is larger than both.

    Args:
        size: in bytes.
        head, tail: bytes that are held of a larger part.

    Attributes:
        size: as given.
        head: the beginning, or the whole part.
        tail: the end; empty when `head` is the whole part.
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
        """The part that holds these bytes, or their two ends."""
        part = cls(len(data))
        part.add(memoryview(data))
        return part

    @property
    def is_whole(self) -> bool:
        """Whether the whole part is held."""
        return self.size == len(self.head)

    def add(self, data: memoryview) -> None:
        """Add the next piece."""
        room = self._head - len(self.head)
        if room > 0:
            self.head += data[:room]
        # The tail begins where `_tail` bytes of the part are left.
        skipped = max(0, self.size - self._tail - self._come)
        if self._tail and skipped < len(data):
            self.tail += data[skipped:]
        self._come += len(data)


def parse_content(kind: str, content: bytes | Part) -> Any:
    """The content of a message, or its replacement.

    Args:
        kind: the type of the message.
        content: its JSON.

    Raises:
        ValueError: it is not JSON, or it cannot be replaced.
        KeyError, TypeError: it is not a content of this type.
    """
    part = content if isinstance(content, Part) else Part.of(content)
    why = f"This has {part.size:,} bytes, too many to be read."
    try:
        if part.is_whole and fits(part.head):
            return _parse(part.head)
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
    """Whether this JSON takes at most `room` bytes when it is parsed; None: `MAX_PARSED_BYTES`."""
    room = MAX_PARSED_BYTES if room is None else room
    if len(data) <= ALWAYS_READ and room == MAX_PARSED_BYTES:
        return True
    left = (room - 2 * len(data)) // _ITEM_ROOM
    # Each value follows a comma, a bracket or a colon. Those within strings do not count; they are removed last.
    if _items(data) <= left:
        return True
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    return bare.count(b'"') // 2 <= left and _items(_TEXTS.sub(b"", bare)) <= left


def _items(data: bytes | bytearray) -> int:
    return sum(map(data.count, (b",", b"[", b"{", b":")))


def _parse(content: bytearray) -> Any:
    """The JSON without the key `UNREAD`, which only this module writes."""
    value = json.loads(content)
    if isinstance(value, dict):
        value.pop(UNREAD, None)
    return value


def _two_ends(part: Part) -> dict[str, Any]:
    """A stream without the middle of its text. The cuts may be inside an escape sequence or a character."""
    size = len(part.head)
    head = _first_that_is_json(part.head[: size - cut] + b'"}' for cut in range(_MAX_ESCAPE))
    tail = _first_that_is_json(b'{"text": "' + part.tail[cut:] for cut in range(_MAX_ESCAPE))
    unread = part.size - size - len(part.tail)
    return {"name": head["name"], "text": _joined(head["text"], unread, tail["text"]), UNREAD: unread}


def _ends_of_display(part: Part) -> dict[str, Any] | None:
    """A display with a large plain text, without the middle of that; None for any other display."""
    text = _PLAIN.search(part.head[:1_000])
    if text is None:
        return None
    with suppress(ValueError, KeyError, TypeError):
        opening, size = b'{"data": {"text/plain": "', len(part.head)
        head = _first_that_is_json(opening + part.head[text.end() : size - cut] + b'"}}' for cut in range(_MAX_ESCAPE))
        tail = _first_that_is_json(opening + part.tail[cut:] for cut in range(_MAX_ESCAPE))
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
    """A content of the same type that contains the reason."""
    if kind in _SHOWN:
        return {"data": {"text/plain": f"({why})"}, "metadata": {}, "execution_count": 0}
    if kind in ("error", "execute_reply"):
        return {"status": "error", "ename": "Oversized", "evalue": why, "traceback": [f"Oversized: {why}"]}
    raise ValueError(why)


class Incoming:
    """Assembles messages from the frames of a connection. Messages that are not signed with our key are dropped.

    Args:
        auth: an `hmac` object with the key, or None when messages are not signed.
        on_message: called with each message: `header`, `parent_header`, `content`, `buffers`, and `unread`: bytes of
            buffers that were not held.
        brief: the channel carries replies: short messages without buffers.
    """

    def __init__(self, auth: Any, on_message: OnMessage, *, brief: bool = False) -> None:
        self._auth = auth
        self._brief = brief
        self._on_message = on_message
        self._more = False
        self._part: Part | None = None
        self._reset()

    def _reset(self) -> None:
        self._number = -1  # of the part after the delimiter; negative before the delimiter
        self._mac = None if self._auth is None else self._auth.copy()
        self._parts: list[Part | bytes] = []
        self._buffers: list[bytes | bytearray] = []
        self._held = self._unread = 0

    def whole(self, frame: bytes, *, more: bool) -> None:
        """Take a frame that arrived at once."""
        number = self._number
        if number < 0:
            self._number = _SIGNATURE if frame == _DELIMITER else -1
        elif number <= _CONTENT:
            self._parts.append(frame)
            if self._mac is not None and number > _SIGNATURE:
                self._mac.update(frame)
            self._number += 1
        elif self._has_room(len(frame)):
            self._buffers.append(frame)
        if not more:
            self._finish()

    def begin(self, size: int, *, more: bool) -> None:
        """Start a frame that arrives in pieces."""
        self._more, self._part = more, None
        if 0 <= self._number <= _CONTENT:
            self._part = self._first_part(size)
        elif self._number > _CONTENT and self._has_room(size):
            self._part = Part(size, size, 0)
        elif size == len(_DELIMITER):
            self._part = Part(size)

    def piece(self, data: memoryview) -> None:
        """Take a piece of the frame."""
        if self._part is not None:
            self._part.add(data)
        if self._mac is not None and _SIGNATURE < self._number <= _CONTENT:
            self._mac.update(data)

    def end(self) -> None:
        """End the frame."""
        part, self._part = self._part, None
        if self._number < 0:
            self._number = _SIGNATURE if part is not None and part.head == _DELIMITER else -1
        elif part is not None and self._number <= _CONTENT:
            self._parts.append(part)
            self._number += 1
        elif part is not None:
            self._buffers.append(part.head)
        if not self._more:
            self._finish()

    def _first_part(self, size: int) -> Part:
        """A part before the buffers, with the bound of its kind."""
        if self._number == _CONTENT:
            return Part(size, MAX_REPLY_BYTES, 0) if self._brief else Part(size)
        return Part(size, MAX_SIGNATURE_BYTES if self._number == _SIGNATURE else MAX_HEADER_BYTES, 0)

    def _has_room(self, size: int) -> bool:
        """Whether another buffer may be held; if not, its bytes are counted as unread."""
        if self._brief or self._held + size > MAX_BUFFERS_BYTES or len(self._buffers) >= MAX_BUFFERS:
            self._unread += size
            return False
        self._held += size
        return True

    def _finish(self) -> None:
        parts, mac, buffers, unread = self._parts, self._mac, self._buffers, self._unread
        self._reset()
        try:
            message = _message(parts, mac)
        except (ValueError, TypeError, KeyError, RecursionError):
            return  # not signed with our key, or not a message, so not from the kernel
        message["buffers"], message["unread"] = buffers, unread
        self._on_message(message)


def _message(parts: list[Part | bytes], mac: Any) -> dict[str, Any]:
    """`Session.deserialize` in half the time: dates are not parsed, and signatures are not stored."""
    signature, header, parent, metadata, content = parts
    if mac is not None and not hmac.compare_digest(_head(signature), mac.hexdigest().encode("ascii")):
        raise ValueError("not signed with our key")
    for name, part in (("header", header), ("parent header", parent), ("metadata", metadata)):
        if isinstance(part, Part) and not part.is_whole:
            return _unreadable(f"its {name} has {part.size:,} bytes")
    head, above = json.loads(_head(header)), json.loads(_head(parent))
    kind = head["msg_type"]
    try:
        body = parse_content(kind, content)
    except ValueError as error:
        return _unreadable(f"it is a {kind[:100]}. {error}")
    return {"header": head, "parent_header": above, "content": body}


def _head(part: Part | bytes) -> bytes:
    return bytes(part.head) if isinstance(part, Part) else part


def _unreadable(why: str) -> dict[str, Any]:
    return {"header": {"msg_type": UNREADABLE}, "parent_header": {}, "content": {"why": why}}
