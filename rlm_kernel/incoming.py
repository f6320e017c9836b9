"""A message of a kernel as it arrives, frame by frame: of each part no more is held than is read, whatever its size.

The signature is checked over everything that came, held or not.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any

from rlm_kernel.oversized import Part, content_of

MAX_BUFFERS_BYTES = 42_000_000
"""Of all buffers of a message: a question and its pictures, see `wire.MAX_QUESTION_BYTES`."""
MAX_BUFFERS = 200
MAX_HEADER_BYTES = 1_000_000
"""Of the header, of its parent and of the metadata, each."""
MAX_SIGNATURE_BYTES = 1_000
MAX_REPLY_BYTES = 2_000_000
"""Of the content of a message on shell or control."""

UNREADABLE = "rlm_unreadable"
"""The type of the message that stands for one that the kernel signed and that cannot be read. Its content says why."""

_DELIMITER = b"<IDS|MSG>"
_SIGNATURE, _HEADER, _PARENT, _METADATA, _CONTENT = range(5)

OnMessage = Callable[[dict[str, Any]], None]


class Incoming:
    """Takes the frames of a connection, and gives on messages. What was not signed with our key is dropped.

    Args:
        auth: a `hmac` object that has seen the key, or None when messages are not signed.
        on_message: called with each message: `header`, `parent_header`, `content`, `buffers`, and `unread`: bytes of
            buffers that were not held.
        brief: the channel carries replies, which are short and have no buffers.
    """

    def __init__(self, auth: Any, on_message: OnMessage, *, brief: bool = False) -> None:
        self._auth = auth
        self._brief = brief
        self._on_message = on_message
        self._more = False
        self._part: Part | None = None
        self._reset()

    def _reset(self) -> None:
        self._number = -1  # of the part after the delimiter, which is still to come
        self._mac = None if self._auth is None else self._auth.copy()
        self._parts: list[Part | bytes] = []
        self._buffers: list[bytes | bytearray] = []
        self._held = self._unread = 0

    def whole(self, frame: bytes, *, more: bool) -> None:
        """A frame that came at once."""
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
        """A frame comes in pieces."""
        self._more, self._part = more, None
        if 0 <= self._number <= _CONTENT:
            most = (MAX_SIGNATURE_BYTES, *[MAX_HEADER_BYTES] * 3, MAX_REPLY_BYTES if self._brief else None)[
                self._number
            ]
            self._part = Part(size, most, None if most is None else 0)
        elif self._number > _CONTENT and self._has_room(size):
            self._part = Part(size, size, 0)
        elif size == len(_DELIMITER):
            self._part = Part(size)

    def piece(self, data: memoryview) -> None:
        """Some of the frame."""
        if self._part is not None:
            self._part.add(data)
        if self._mac is not None and _SIGNATURE < self._number <= _CONTENT:
            self._mac.update(data)

    def end(self) -> None:
        """All of the frame was there."""
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
        """What is held of one of the parts before the buffers."""
        if self._number == _CONTENT:
            return Part(size, MAX_REPLY_BYTES, 0) if self._brief else Part(size)
        return Part(size, MAX_SIGNATURE_BYTES if self._number == _SIGNATURE else MAX_HEADER_BYTES, 0)

    def _has_room(self, size: int) -> bool:
        """Whether another buffer is held; what is not held is counted."""
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
            return  # not signed with our key, or not a message: whoever wrote it is not the kernel
        message["buffers"], message["unread"] = buffers, unread
        self._on_message(message)


def _message(parts: list[Part | bytes], mac: Any) -> dict[str, Any]:
    """What `Session.deserialize` does, without parsing dates and remembering signatures: half of its time."""
    signature, header, parent, metadata, content = parts
    if mac is not None and not hmac.compare_digest(_head(signature), mac.hexdigest().encode("ascii")):
        raise ValueError("not signed with our key")
    for name, part in (("header", header), ("parent header", parent), ("metadata", metadata)):
        if isinstance(part, Part) and not part.is_whole:
            return _unreadable(f"its {name} has {part.size:,} bytes")
    head, above = json.loads(_head(header)), json.loads(_head(parent))
    kind = head["msg_type"]
    try:
        body = content_of(kind, content)
    except ValueError as error:
        if not isinstance(content, Part) or content.is_whole:
            raise
        return _unreadable(f"it is a {kind[:100]}. {error}")
    return {"header": head, "parent_header": above, "content": body}


def _head(part: Part | bytes) -> bytes:
    return bytes(part.head) if isinstance(part, Part) else part


def _unreadable(why: str) -> dict[str, Any]:
    return {"header": {"msg_type": UNREADABLE}, "parent_header": {}, "content": {"why": why}}
