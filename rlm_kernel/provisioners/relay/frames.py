"""The frames of the relay as the host reads them: a message is passed on while it arrives, and never held."""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import NoReturn, Protocol

from rlm_kernel.provisioners.relay.remote_end import CHANNELS, IOPUB, MAX_PART_BYTES, MAX_PARTS, BrokenStreamError

MAX_FIRST_BYTES = 10_000
"""Bytes of the part that addresses a message: an identity has 255 at most, a topic some hundred."""
MAX_STATUS_BYTES = 2**21
"""Bytes of a frame for the host itself. The remote end sends at most `remote_end.READ_BYTES` of the kernel's output."""

_HEAD = struct.Struct("!BI")


class Host(Protocol):
    """Takes what is read."""

    def take_status(self, kind: int, data: bytes) -> None:
        """A frame that is not a message."""
        ...

    def message_begins(self, channel: int, first: bytes) -> None:
        """A message begins. Its first part addresses it; on IOPub that part belongs to the message."""
        ...

    def part_begins(self, size: int, *, more: bool) -> None:
        """A part of the message begins; another one follows if `more`."""
        ...

    def piece(self, data: bytes) -> None:
        """Some bytes of the part."""
        ...


class FramesInPieces:
    """Cuts a stream of bytes into frames, as `remote_end.Frames` does, and passes parts on while they arrive."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._held = bytearray()
        self._cutter = self._cut()
        self._left, self._is_passed_on = next(self._cutter)

    def feed(self, data: bytes) -> None:
        """Read the next bytes.

        Raises:
            BrokenStreamError: these are not frames.
        """
        at = 0
        while at < len(data):
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            if self._is_passed_on:
                self._host.piece(piece)
            else:
                self._held += piece
            while self._left == 0:
                held, self._held = bytes(self._held), bytearray()
                self._left, self._is_passed_on = self._cutter.send(held)

    def _cut(self) -> Generator[tuple[int, bool], bytes, NoReturn]:
        """Yield how many bytes come next, and whether they are passed on; else they are held, and sent here."""
        while True:
            kind, count = _HEAD.unpack((yield _HEAD.size, False))
            if not 0 < count <= MAX_PARTS:
                raise BrokenStreamError(f"a frame of {count:,} parts")
            first_size, *sizes = struct.unpack(f"!{count}Q", (yield 8 * count, False))
            if first_size + sum(sizes) > MAX_PART_BYTES:
                raise BrokenStreamError(f"a frame of {first_size + sum(sizes):,} bytes")
            is_message = kind in CHANNELS
            if first_size > (MAX_FIRST_BYTES if is_message else MAX_STATUS_BYTES) or (sizes and not is_message):
                raise BrokenStreamError(f"a frame of kind {kind} that begins with {first_size:,} bytes")
            first = yield first_size, False
            if not is_message:
                self._host.take_status(kind, first)
                continue
            self._host.message_begins(kind, first)
            if kind == IOPUB:
                self._host.part_begins(first_size, more=bool(sizes))
                self._host.piece(first)
            for number, size in enumerate(sizes, 1):
                self._host.part_begins(size, more=number < len(sizes))
                yield size, True
