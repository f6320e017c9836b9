"""ZMTP 3.0, the protocol of ZeroMQ sockets: encode messages, and cut incoming bytes into frames. Without I/O.

libzmq holds a message until it is complete, and has no bound for a message of many frames. A kernel may send any
message. So its frames are read here: the length of a frame is known before its body, and the body is passed on in
pieces.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

GREETING = b"\xff" + bytes(7) + b"\x01\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
"""Version 3.0 without encryption: a key signs the messages, and the sockets are in a private directory."""

MAX_COMMAND_BYTES = 65_536
MAX_MESSAGE_BYTES = 2**33
"""Of all frames of a message. No client sends more."""
MAX_MESSAGE_FRAMES = 1_000_000

_MORE, _LONG, _COMMAND = 1, 2, 4
_LENGTH = struct.Struct("!Q")


class BrokenProtocolError(ValueError):
    """The incoming bytes are not ZMTP 3: the peer is another program, or another program writes to its connection."""


class Receiver(Protocol):
    """Takes the frames of a `Reader`. After the handshake, for each frame: `whole`, or `begin`, pieces, and `end`."""

    def ready(self, identity: bytes) -> None:
        """The handshake is over, and messages may be sent."""
        ...

    def ping(self, context: bytes) -> None:
        """The peer checks the connection: send it `pong(context)`."""
        ...

    def pong(self) -> None:
        """The peer answers a `ping()`."""
        ...

    def whole(self, frame: bytes, *, more: bool) -> None:
        """A frame that arrived at once; another one of its message follows if `more`."""
        ...

    def begin(self, size: int, *, more: bool) -> None:
        """A frame of `size` bytes, at least one, that arrives in pieces."""
        ...

    def piece(self, data: memoryview) -> None:
        """The next bytes of the frame."""
        ...

    def end(self) -> None:
        """The frame is complete."""
        ...


class Reader:
    """Cuts the bytes of a peer into frames. Time and memory do not depend on the size of the frames.

    Args:
        receiver: called with the frames.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._begun = b""  # of a greeting, a head or a command that is not complete
        self._left = 0  # bytes of the frame that have not come
        self._greeted = self._is_ready = False
        self._bytes = self._frames = 0  # of the message so far

    def feed(self, data: bytes) -> None:
        """Read the next bytes.

        Raises:
            BrokenProtocolError: they are not ZMTP 3.
        """
        if self._begun:
            data, self._begun = self._begun + data, b""
        at, size = 0, len(data)
        while at < size:
            if self._left:
                read = min(self._left, size - at)
                self._pass_on(memoryview(data)[at : at + read])
            elif (read := self._frame(data, at) if self._greeted else self._greeting(data)) == 0:
                self._begun = data[at:]
                return
            at += read

    def _pass_on(self, data: memoryview) -> None:
        self._left -= len(data)
        self._receiver.piece(data)
        if not self._left:
            self._receiver.end()

    def _greeting(self, data: bytes) -> int:
        """Read the greeting. Returns its length, or 0 if it is not complete."""
        for start, expected in ((0, b"\xff"), (9, b"\x7f\x03"), (12, b"NULL\0")):
            come = data[start : start + len(expected)]
            if come != expected[: len(come)]:
                raise BrokenProtocolError("it begins as another protocol, an older version, or with encryption")
        self._greeted = len(data) >= len(GREETING)
        return len(GREETING) if self._greeted else 0

    def _frame(self, data: bytes, at: int) -> int:
        """Read a frame, or the head of a large one. Returns how many bytes that were, or 0 if it is not complete."""
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
        """Read a command. Returns whether it is complete."""
        if flags & ~_LONG != _COMMAND or size > MAX_COMMAND_BYTES:
            raise BrokenProtocolError(f"a frame of {size:,} bytes with the flags {flags:#x}")
        if len(data) - at < size:
            return False
        self._handle(data[at : at + size])
        return True

    def _handle(self, command: bytes) -> None:
        """Handle a command: READY of the handshake, PING and PONG."""
        name, rest = command[1 : 1 + command[0]] if command else b"", command[1 + command[0] :] if command else b""
        if not self._is_ready:
            if name != b"READY":
                raise BrokenProtocolError(f"{name!r} instead of a handshake")
            self._is_ready = True
            self._receiver.ready(_properties(rest).get(b"identity", b""))
        elif name == b"PING":
            self._receiver.ping(rest[2:])
        elif name == b"PONG":
            self._receiver.pong()


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
    """The command that ends our side of the handshake."""
    known = {b"Socket-Type": socket_type.encode("ascii"), b"Identity": identity}
    body = b"\x05READY" + b"".join(
        bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value for name, value in known.items()
    )
    return _frame_head(len(body), _COMMAND) + body


def ping() -> bytes:
    """Asks the other end for a sign of life. libzmq answers it in a thread of its own, without Python."""
    body = b"\x04PING\0\0"
    return _frame_head(len(body), _COMMAND) + body


def pong(context: bytes) -> bytes:
    """The answer to a `ping`."""
    body = b"\x04PONG" + context[:16]
    return _frame_head(len(body), _COMMAND) + body


def frame_head(size: int, *, more: bool) -> bytes:
    """The head of a frame of a message."""
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
