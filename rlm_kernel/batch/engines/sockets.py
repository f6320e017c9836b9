"""Links over a Unix socket, for executors whose processes are on this machine."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rlm_kernel.batch.engines.messages import Link

_SIZE_BYTES = 8
_KEY_BYTES = 32


class SocketLink:
    """A link over a stream: each message comes after its size."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, content: bytes) -> None:
        """Send bytes."""
        with suppress(OSError):
            self._writer.write(len(content).to_bytes(_SIZE_BYTES) + content)
            await self._writer.drain()

    async def receive(self) -> bytes:
        """The next bytes.

        Raises:
            EOFError: the other end is gone.
        """
        try:
            size = int.from_bytes(await self._reader.readexactly(_SIZE_BYTES))
            return await self._reader.readexactly(size)
        except OSError as error:
            raise EOFError from error

    def close(self) -> None:
        """Close it."""
        self._writer.close()


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """Where the driver listens. Only this user can connect, because the folder of the socket is private.

    Attributes:
        path: of the socket.
        key: sent first. A sandboxed kernel of the same user may find the socket, but does not know the key.
    """

    path: Path
    key: bytes = field(repr=False)

    async def connect(self) -> Link:
        """Connect to the driver.

        Raises:
            OSError: it cannot be reached.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(self.path)
        except FileNotFoundError as error:
            raise OSError(
                f"{self.path} is not on this machine: an executor has to run its processes on the machine of the "
                'batch; for others use Dask (engine="dask").'
            ) from error
        writer.write(self.key)
        return SocketLink(reader, writer)


@asynccontextmanager
async def listen(serve: Callable[[Link], Coroutine[Any, Any, None]]) -> AsyncIterator[SocketAddress]:
    """A context in which workers can connect.

    Args:
        serve: serves one link, until its other end is gone.
    """
    open_links: dict[asyncio.Task[None], Link] = {}
    key = secrets.token_bytes(_KEY_BYTES)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:  # before anything is unpickled
            is_known = hmac.compare_digest(await reader.readexactly(_KEY_BYTES), key)
        except (EOFError, OSError):
            is_known = False
        if not is_known:
            writer.close()
            return
        link = SocketLink(reader, writer)
        serving = asyncio.ensure_future(serve(link))
        open_links[serving] = link
        serving.add_done_callback(open_links.pop)

    with TemporaryDirectory(prefix="rlm-batch-") as folder:
        path = Path(folder, "driver")
        server = await asyncio.start_unix_server(connected, path)
        try:
            yield SocketAddress(path, key)
        finally:
            server.close()
            for link in open_links.values():
                link.close()
            if open_links:
                await asyncio.wait(open_links)
