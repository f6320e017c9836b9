"""Pass listening sockets of this machine into a container through a Unix socket, for the kernel to use.

Clients reach the kernel without a relay, and the container needs no writable directory of this machine.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlm_kernel.provisioners.docker.container import LOG_BYTES, Container
from rlm_kernel.provisioners.relay.host_end import LOST
from rlm_kernel.provisioners.relay.remote_end import CHANNELS
from rlm_kernel.zmtp.sockets import address, listen


class SocketHandover:
    """The listening sockets of a kernel, handed over to the first process that connects to a Unix socket."""

    def __init__(self, connection: Mapping[str, Any]) -> None:
        self._addresses = [address(connection, name) for name in CHANNELS.values()]
        self._listening: list[socket.socket] = []
        self._door: socket.socket | None = None

    def open(self, path: Path) -> None:
        """Listen at the addresses of the connection file, and at `path` for the launcher."""
        self._listening = [listen(name) for name in self._addresses]
        self._door = listen(f"ipc://{path}")
        path.chmod(0o666)  # only this user can enter the 0700 directory around it; the container may have another uid

    async def hand_over(self) -> None:
        """Wait for the launcher, send it the sockets, and close them here."""
        assert self._door is not None
        launcher, _ = await asyncio.get_running_loop().sock_accept(self._door)
        with launcher:
            socket.send_fds(launcher, [b"."], [listening.fileno() for listening in self._listening])
        self.close()

    def close(self) -> None:
        """Close what was not handed over. Idempotent."""
        for listening in filter(None, (*self._listening, self._door)):
            listening.close()
        self._listening, self._door = [], None


class DirectLink:
    """A `Link` without a relay: clients reach the kernel's sockets, and the container's streams end with it."""

    def __init__(self, container: Container, handover: SocketHandover) -> None:
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.log = b""
        self._container = container
        self._door = handover
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(handover.hand_over())]

    async def close(self) -> None:
        """End the container. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._door.close()
        self._end()
        await self._container.close()

    async def _watch(self) -> None:
        try:
            async for data in self._container:
                self.log = (self.log + data)[-LOG_BYTES:]
        except OSError as error:
            self.log += f"\nThe Docker engine has gone: {error}".encode()
        finally:
            self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(LOST)
