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
from collections.abc import AsyncIterator
from typing import Any, Protocol

READ_BYTES = 2**18
MAX_PIECES = 32
"""Read ahead by a thread; then it waits until they are taken."""
_ROOM_SECONDS = 0.001
"""How long a full connection is left alone."""
_HEAD = struct.Struct("!B3xI")


class Connection(Protocol):
    """Both directions of the attached connection."""

    async def read(self) -> bytes:
        """What comes next; empty at the end. Raises OSError."""
        ...

    async def write(self, data: bytes) -> None:
        """Send. Raises OSError."""
        ...

    async def close(self) -> None:
        """Give the connection up."""
        ...


async def attach(raw: Any) -> Attached:
    """Read and write what `APIClient.attach_socket` returned."""
    inner = getattr(raw, "_sock", raw)
    if type(inner) is socket.socket:
        return Attached(await Plain.of(raw, inner))
    return Attached(Encrypted(raw, inner) if isinstance(inner, ssl.SSLSocket) else Threaded(raw, inner))


def release(raw: Any) -> None:
    """Close what `APIClient.attach_socket` returned: by the response that docker-py hides in it, where it can."""
    getattr(raw, "_response", raw).close()


class Attached:
    """The streams of one container."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._begun = bytearray()

    async def write(self, data: bytes) -> None:
        """Write to standard input.

        Raises:
            OSError: the container has ended, or the engine.
        """
        await self._connection.write(data)

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        """The number of the stream, 1 or 2, and a piece of it; ends with the container.

        Raises:
            OSError: the engine has gone.
        """
        left, stream = 0, 0
        while data := await self._connection.read():
            self._begun += data
            while self._begun:
                if left == 0:
                    if len(self._begun) < _HEAD.size:
                        break
                    stream, left = _HEAD.unpack_from(self._begun)
                    del self._begun[: _HEAD.size]
                piece = bytes(self._begun[:left])
                del self._begun[: len(piece)]
                left -= len(piece)
                if piece:
                    yield stream, piece

    async def close(self) -> None:
        """Give the streams up: the end of standard input."""
        await self._connection.close()


class Plain:
    """A connection that asyncio reads itself."""

    def __init__(self, raw: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._raw = raw
        self._reader = reader
        self._writer = writer

    @classmethod
    async def of(cls, raw: Any, inner: socket.socket) -> Plain:
        """`raw` is docker-py's object around the socket."""
        own = inner.dup()
        release(raw)
        own.setblocking(False)
        opened = asyncio.open_unix_connection if own.family == socket.AF_UNIX else asyncio.open_connection
        reader, writer = await opened(sock=own, limit=READ_BYTES)
        return cls(raw, reader, writer)

    async def read(self) -> bytes:
        """What comes next."""
        return await self._reader.read(READ_BYTES)

    async def write(self, data: bytes) -> None:
        """Send, and wait while much is unsent."""
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        """Close it. What was not sent is dropped: a container that does not read would never take it."""
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class Encrypted:
    """A TLS connection that docker-py has opened: asyncio cannot adopt it, and two threads may not use it at a time."""

    def __init__(self, raw: Any, inner: ssl.SSLSocket) -> None:
        inner.setblocking(False)
        self._raw = raw
        self._inner = inner
        self._readable = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(inner.fileno(), self._readable.set)

    async def read(self) -> bytes:
        """What comes next."""
        while True:
            self._readable.clear()
            try:
                return self._inner.recv(READ_BYTES)
            except ssl.SSLWantReadError:
                await self._readable.wait()
            except ssl.SSLWantWriteError:
                await asyncio.sleep(_ROOM_SECONDS)

    async def write(self, data: bytes) -> None:
        """Send."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._inner.send(rest) :]
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                await asyncio.sleep(_ROOM_SECONDS)

    async def close(self) -> None:
        """Close it."""
        self._loop.remove_reader(self._inner.fileno())
        release(self._raw)


class Threaded:
    """A connection that only blocks (ssh, say): one thread reads it, writing borrows another."""

    def __init__(self, raw: Any, inner: Any) -> None:
        self._raw = raw
        self._inner = inner
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = threading.Semaphore(MAX_PIECES)
        threading.Thread(target=self._listen, daemon=True).start()

    async def read(self) -> bytes:
        """What comes next."""
        data = await self._arrived.get()
        self._room.release()
        return data

    async def write(self, data: bytes) -> None:
        """Send."""
        await asyncio.to_thread(self._inner.sendall, data)

    async def close(self) -> None:
        """Close it; the thread that reads ends with it."""
        with contextlib.suppress(OSError):
            self._inner.shutdown(socket.SHUT_RDWR)
        self._room.release()
        release(self._raw)

    def _listen(self) -> None:
        data = b"-"
        while data:
            self._room.acquire()
            try:
                data = self._inner.recv(READ_BYTES)
            except (OSError, ValueError):
                data = b""
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, data)
