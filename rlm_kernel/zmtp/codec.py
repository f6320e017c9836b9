"""ZMTP 3.0, the protocol of ZeroMQ sockets, as bytes: what is sent, and what arrives cut into frames. No I/O here.

libzmq holds a message until it is whole, and no option of it bounds a message of many frames. A kernel may send any
message. So the frames of a kernel are read here: the length of a frame is known before its body comes, and its body is
passed on in pieces, to be kept or not.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

GREETING = b"\xff" + bytes(7) + b"\x01\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
"""Version 3.0 without security: a key signs the messages, and the sockets lie in a private directory."""

MAX_COMMAND_BYTES = 65_536
MAX_MESSAGE_BYTES = 2**33
"""Of all frames of a message. More than any client sends: what counts further is no message."""
MAX_MESSAGE_FRAMES = 1_000_000

_MORE, _LONG, _COMMAND = 1, 2, 4
_LENGTH = struct.Struct("!Q")


class BrokenProtocolError(ValueError):
    """What arrives is not ZMTP 3: the peer is something else, or somebody else writes to its connection."""


class Receiver(Protocol):
    """Takes what a `Reader` reads. After the handshake: for each frame `whole`, or `begin`, its pieces, and `end`."""

    def ready(self, identity: bytes) -> None:
        """The handshake is over: from now on messages may be sent."""
        ...

    def ping(self, context: bytes) -> None:
        """The peer wants to see that we live: send it `pong(context)`."""
        ...

    def whole(self, frame: bytes, *, more: bool) -> None:
        """A frame that has come at once; after it there is another one of its message if `more`."""
        ...

    def begin(self, size: int, *, more: bool) -> None:
        """A frame of `size` bytes, one at least, that comes in pieces."""
        ...

    def piece(self, data: memoryview) -> None:
        """Some of its bytes."""
        ...

    def end(self) -> None:
        """That was all of it."""
        ...


class Reader:
    """Cuts what a peer sends into frames, in time and room that do not depend on how large those are.

    Args:
        receiver: is called with what is found.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._begun = b""  # of a greeting, a head or a command that is not complete
        self._left = 0  # bytes of the frame that have not come
        self._greeted = self._is_ready = False
        self._bytes = self._frames = 0  # of the message so far

    def feed(self, data: bytes) -> None:
        """Read on.

        Raises:
            BrokenProtocolError: this is not ZMTP 3.
        """
        if self._begun:
            data, self._begun = self._begun + data, b""
        at, size = 0, len(data)
        while at < size:
            if self._left:
                read = min(self._left, size - at)
                self._go_on(memoryview(data)[at : at + read])
            elif (read := self._frame(data, at) if self._greeted else self._greeting(data)) == 0:
                self._begun = data[at:]
                return
            at += read

    def _go_on(self, data: memoryview) -> None:
        self._left -= len(data)
        self._receiver.piece(data)
        if not self._left:
            self._receiver.end()

    def _greeting(self, data: bytes) -> int:
        """Read the greeting. Returns how long it is; 0: it is not complete."""
        for start, expected in ((0, b"\xff"), (9, b"\x7f\x03"), (12, b"NULL\0")):
            come = data[start : start + len(expected)]
            if come != expected[: len(come)]:
                raise BrokenProtocolError("it begins as another protocol, an older version, or with encryption")
        self._greeted = len(data) >= len(GREETING)
        return len(GREETING) if self._greeted else 0

    def _frame(self, data: bytes, at: int) -> int:
        """Read a frame, or what stands before a large one. Returns how much that was; 0: it is not complete."""
        flags, head = data[at], 9 if data[at] & _LONG else 2
        if len(data) - at < head:
            return 0
        size = _LENGTH.unpack_from(data, at + 1)[0] if flags & _LONG else data[at + 1]
        if flags & ~(_MORE | _LONG) or not self._is_ready:
            return self._control(data, at + head, flags, size) and head + size
        self._count(size, last=not flags & _MORE)
        if len(data) - at >= head + size:
            self._receiver.whole(data[at + head : at + head + size], more=bool(flags & _MORE))
            return int(head + size)
        self._left = size
        self._receiver.begin(size, more=bool(flags & _MORE))
        return head

    def _count(self, size: int, *, last: bool) -> None:
        self._bytes += size
        self._frames += 1
        if self._bytes > MAX_MESSAGE_BYTES or self._frames > MAX_MESSAGE_FRAMES:
            raise BrokenProtocolError(f"a message of {self._frames:,} frames and {self._bytes:,} bytes, or more")
        if last:
            self._bytes = self._frames = 0

    def _control(self, data: bytes, at: int, flags: int, size: int) -> bool:
        """Obey a command. Returns whether it was complete."""
        if flags & ~_LONG != _COMMAND or size > MAX_COMMAND_BYTES:
            raise BrokenProtocolError(f"a frame of {size:,} bytes with the flags {flags:#x}")
        if len(data) - at < size:
            return False
        self._obey(data[at : at + size])
        return True

    def _obey(self, command: bytes) -> None:
        """Handle a command: that of the handshake, and the question whether we live."""
        name, rest = command[1 : 1 + command[0]] if command else b"", command[1 + command[0] :] if command else b""
        if not self._is_ready:
            if name != b"READY":
                raise BrokenProtocolError(f"{name!r} in the place of a handshake")
            self._is_ready = True
            self._receiver.ready(_properties(rest).get(b"identity", b""))
        elif name == b"PING":
            self._receiver.ping(rest[2:])


def _properties(data: bytes) -> dict[bytes, bytes]:
    """The metadata of a READY."""
    found: dict[bytes, bytes] = {}
    while data:
        name, data = data[1 : 1 + data[0]], data[1 + data[0] :]
        if len(data) < 4:  # noqa: PLR2004 (the length of a value)
            raise BrokenProtocolError("a READY that is cut off")
        size = int.from_bytes(data[:4], "big")
        found[name.lower()], data = data[4 : 4 + size], data[4 + size :]
    return found


def ready(socket_type: str, identity: bytes = b"") -> bytes:
    """The command that ends our part of the handshake."""
    known = {b"Socket-Type": socket_type.encode("ascii"), b"Identity": identity}
    body = b"\x05READY" + b"".join(
        bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value for name, value in known.items()
    )
    return _frame_head(len(body), _COMMAND) + body


def pong(context: bytes) -> bytes:
    """The answer to a `ping`."""
    body = b"\x04PONG" + context[:16]
    return _frame_head(len(body), _COMMAND) + body


def frame_head(size: int, *, more: bool) -> bytes:
    """What stands before the bytes of a frame of a message."""
    return _frame_head(size, _MORE if more else 0)


def encode(parts: Sequence[Any]) -> Iterable[Any]:
    """A message as pieces to be written one after another; large parts are not copied."""
    last = len(parts) - 1
    for number, part in enumerate(parts):
        view = memoryview(part).cast("B") if not isinstance(part, bytes) else part
        yield frame_head(len(view), more=number < last)
        yield view


def _frame_head(size: int, flags: int) -> bytes:
    return bytes((flags, size)) if size <= 0xFF else bytes((flags | _LONG,)) + _LENGTH.pack(size)  # noqa: PLR2004
