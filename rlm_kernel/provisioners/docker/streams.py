"""The standard streams of a container, as docker-py attaches them: one connection with Docker's own frames.

Docker puts eight bytes before each piece: the number of the stream, three zeros, and the length.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any

READ_BYTES = 2**18
MAX_PIECES = 32
"""Pieces that a thread reads ahead; then it waits until they are taken."""
_WRITE_AGAIN_SECONDS = 0.001
"""Pause before a full connection is tried again."""
_HEAD = struct.Struct("!B3xI")


async def attach(raw: Any) -> Streams:
    """Read and write what `APIClient.attach_socket` returned."""
    inner = getattr(raw, "_sock", raw)
    if type(inner) is socket.socket:
        return await _SocketStreams.adopt(raw, inner)
    return _TLSStreams(raw, inner) if isinstance(inner, ssl.SSLSocket) else _ThreadedStreams(raw, inner)


def release(raw: Any) -> None:
    """Close what `APIClient.attach_socket` returned: by the response that docker-py hides in it, where it can."""
    getattr(raw, "_response", raw).close()


class Streams(ABC):
    """The streams of one container over one connection."""

    @abstractmethod
    async def read(self) -> bytes:
        """The next bytes of the connection; empty at its end.

        Raises:
            OSError: the engine has gone.
        """

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Write to standard input, and wait while much is unsent.

        Raises:
            OSError: the container or the engine has ended.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the connection, which ends standard input."""

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        """The number of the stream, 1 or 2, and a piece of it; ends with the container.

        Raises:
            OSError: the engine has gone.
        """
        left, stream, pending = 0, 0, bytearray()
        while data := await self.read():
            pending += data
            while pending:
                if left == 0:
                    if len(pending) < _HEAD.size:
                        break
                    stream, left = _HEAD.unpack_from(pending)
                    del pending[: _HEAD.size]
                piece = bytes(pending[:left])
                del pending[: len(piece)]
                left -= len(piece)
                if piece:
                    yield stream, piece


class _SocketStreams(Streams):
    """Over a plain socket, which asyncio reads itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def adopt(cls, raw: Any, inner: socket.socket) -> _SocketStreams:
        """Take the socket out of docker-py's object `raw`, which is closed."""
        own = inner.dup()
        release(raw)
        own.setblocking(False)
        opened = asyncio.open_unix_connection if own.family == socket.AF_UNIX else asyncio.open_connection
        return cls(*await opened(sock=own, limit=READ_BYTES))

    async def read(self) -> bytes:
        return await self._reader.read(READ_BYTES)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        """Close it. Unsent bytes are dropped: a container that does not read would never take them."""
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class _TLSStreams(Streams):
    """Over TLS that docker-py has opened: asyncio cannot adopt it, and two threads may not use it at a time."""

    def __init__(self, raw: Any, inner: ssl.SSLSocket) -> None:
        inner.setblocking(False)
        self._raw = raw
        self._inner = inner
        self._readable = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(inner.fileno(), self._readable.set)

    async def read(self) -> bytes:
        while True:
            self._readable.clear()
            try:
                return self._inner.recv(READ_BYTES)
            except ssl.SSLWantReadError:
                await self._readable.wait()
            except ssl.SSLWantWriteError:
                await asyncio.sleep(_WRITE_AGAIN_SECONDS)

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._inner.send(rest) :]
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                await asyncio.sleep(_WRITE_AGAIN_SECONDS)

    async def close(self) -> None:
        self._loop.remove_reader(self._inner.fileno())
        release(self._raw)


class _ThreadedStreams(Streams):
    """Over a connection that only blocks, such as ssh: a thread reads it, and writing borrows another."""

    def __init__(self, raw: Any, inner: Any) -> None:
        self._raw = raw
        self._inner = inner
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = threading.Semaphore(MAX_PIECES)
        threading.Thread(target=self._read_ahead, daemon=True).start()

    async def read(self) -> bytes:
        data = await self._arrived.get()
        self._room.release()
        return data

    async def write(self, data: bytes) -> None:
        await asyncio.to_thread(self._inner.sendall, data)

    async def close(self) -> None:
        """Close it; the thread that reads ends with it."""
        with contextlib.suppress(OSError):
            self._inner.shutdown(socket.SHUT_RDWR)
        self._room.release()
        release(self._raw)

    def _read_ahead(self) -> None:
        data = b"-"
        while data:
            self._room.acquire()
            try:
                data = self._inner.recv(READ_BYTES)
            except (OSError, ValueError):
                data = b""
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, data)
