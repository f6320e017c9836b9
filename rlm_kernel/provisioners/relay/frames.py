"""The frames of the relay as the host reads them: a message is passed on while it arrives, and never held."""

from __future__ import annotations

import struct
from typing import Protocol

from rlm_kernel.provisioners.relay.remote_end import CHANNELS, IOPUB, MAX_PART_BYTES, MAX_PARTS, BrokenStreamError

MAX_FIRST_BYTES = 10_000
"""Of the part that says for whom a message is: an identity has 255, a topic some hundred."""
MAX_TOLD_BYTES = 2**21
"""Of a frame that is for the host itself. `relay.READ_BYTES` of the kernel's output come at most."""

_HEAD = struct.Struct("!BI")


class Host(Protocol):
    """Takes what is read."""

    def told(self, kind: int, words: bytes) -> None:
        """A frame that is no message."""
        ...

    def message_begins(self, channel: int, first: bytes) -> None:
        """A message begins; this part says for whom it is. On IOPub it is a part of it, elsewhere not."""
        ...

    def part_begins(self, size: int, *, more: bool) -> None:
        """A part of the message begins; after it there is another if `more`."""
        ...

    def piece(self, data: bytes) -> None:
        """Some bytes of the part."""
        ...


class FramesInPieces:
    """Cuts a stream of bytes into frames, as `relay.Frames` does, and passes on what comes."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._kind = 0
        self._sizes: list[int] = []  # of the parts that have not begun, the next one last
        self._kept: bytearray | None = bytearray()  # what is being held, until it is complete
        self._left = _HEAD.size
        self._complete = self._head

    def feed(self, data: bytes) -> None:
        """Read on.

        Raises:
            BrokenStreamError: these are no frames.
        """
        at, size = 0, len(data)
        while at < size:
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            if self._kept is not None:
                self._kept += piece
            else:
                self._host.piece(piece)
            while self._left == 0:
                self._complete()

    def _expect(self, size: int, complete: object, *, kept: bool = True) -> None:
        self._left, self._kept = size, bytearray() if kept else None
        self._complete = complete  # type: ignore[assignment]

    def _head(self) -> None:
        self._kind, count = _HEAD.unpack(self._kept or b"")
        if not 0 < count <= MAX_PARTS:
            raise BrokenStreamError(f"a frame of {count:,} parts")
        self._expect(8 * count, self._lengths)

    def _lengths(self) -> None:
        sizes = struct.unpack(f"!{len(self._kept or b'') // 8}Q", self._kept or b"")
        if sum(sizes) > MAX_PART_BYTES:
            raise BrokenStreamError(f"a frame of {sum(sizes):,} bytes")
        self._sizes = list(reversed(sizes))
        first, is_message = self._sizes.pop(), self._kind in CHANNELS
        if first > (MAX_FIRST_BYTES if is_message else MAX_TOLD_BYTES) or (self._sizes and not is_message):
            raise BrokenStreamError(f"a frame of kind {self._kind} that begins with {first:,} bytes")
        self._expect(first, self._first)

    def _first(self) -> None:
        first = bytes(self._kept or b"")
        if self._kind not in CHANNELS:
            self._host.told(self._kind, first)
        else:
            self._host.message_begins(self._kind, first)
            if self._kind == IOPUB:
                self._host.part_begins(len(first), more=bool(self._sizes))
                self._host.piece(first)
        self._part()

    def _part(self) -> None:
        """The next part begins, or the frame is over."""
        if not self._sizes:
            self._expect(_HEAD.size, self._head)
            return
        size = self._sizes.pop()
        if self._kind in CHANNELS:
            self._host.part_begins(size, more=bool(self._sizes))
        self._expect(size, self._part, kept=False)
