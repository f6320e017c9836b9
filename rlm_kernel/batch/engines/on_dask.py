"""Links over a Dask cluster: queues of its scheduler, which workers and driver can both reach.

A worker on the driver's machine, of the same user, has a Unix socket: a message over a queue is four requests to the
scheduler, which take as much CPU time as a cell.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from distributed import Client, Queue, get_client

from rlm_kernel._async import is_stop
from rlm_kernel.batch.engines import sockets
from rlm_kernel.batch.engines.messages import Link
from rlm_kernel.batch.engines.sockets import SocketAddress

T = TypeVar("T")

SILENCE_SECONDS = 60
"""A worker that hears nothing from the driver for so long takes it for dead. The driver sends something more often."""


class DaskLink:
    """A link over two queues. A queue is unbounded, so sending does not wait for the other end.

    Args:
        client: of the cluster.
        to: the queue of the other end.
        receive: awaits the next bytes.
        name: of the worker's queue.
        opened: the queues to give up at the end, one for each time that somebody opened it.
    """

    def __init__(
        self, client: Client, to: Queue, receive: Callable[[], Awaitable[bytes]], name: str, opened: Iterable[Queue]
    ) -> None:
        self._client, self._to, self._receive, self._name = client, to, receive, name
        self._opened = list(opened)
        self._broken = False

    async def send(self, content: bytes) -> None:
        """Send bytes."""
        if self._broken:  # Dask would try for 30 s each time
            return
        try:
            await _in_loop(self._client, self._to.put((self._name, content), asynchronous=True))
        except (OSError, AttributeError, KeyError):  # a closed client has no connection; the queue is gone
            self._broken = True

    async def receive(self) -> bytes:
        """The next bytes.

        Raises:
            EOFError: the other end is gone.
        """
        try:
            return await self._receive()
        except (OSError, KeyError, asyncio.CancelledError) as error:  # Dask's TimeoutError is an OSError
            if is_stop(error):  # and not only Dask's task is cancelled
                raise
            self._opened.append(self._to)  # the other end will not
            raise EOFError from error

    def close(self) -> None:
        """Give up the queues."""
        _give_up(self._client, self._opened)


@dataclass(frozen=True, slots=True)
class DaskAddress:
    """Where the driver listens.

    Attributes:
        name: of its queue.
        socket: its socket, for workers that can open it.
    """

    name: str
    socket: SocketAddress

    async def connect(self) -> Link:
        """Connect to the driver, in a task of Dask's."""
        with suppress(OSError):  # another machine, or user
            return await self.socket.connect()
        client, name = await asyncio.to_thread(get_client), f"{self.name}-{secrets.token_hex(8)}"
        to, inbox = await _queue(self.name, client), await _queue(name, client)

        async def receive() -> bytes:
            _, content = await _in_loop(client, inbox.get(timeout=SILENCE_SECONDS, asynchronous=True))
            return bytes(content)

        return DaskLink(client, to, receive, name, (to, inbox, inbox))


@asynccontextmanager
async def listen(
    client: Client, serve: Callable[[Link], Coroutine[Any, Any, None]], on_lost: Callable[[], None]
) -> AsyncIterator[DaskAddress]:
    """A context in which workers can connect.

    Args:
        client: of the cluster.
        serve: serves one link, until its other end is gone.
        on_lost: called when the scheduler is gone: of some tasks, Dask does not say it.
    """
    inbox = await _queue(f"rlm-{secrets.token_hex(8)}", client)
    received: dict[str, asyncio.Queue[bytes]] = {}
    dispatcher = asyncio.ensure_future(_dispatch(client, inbox, serve, received, on_lost))
    try:
        async with sockets.listen(serve) as socket:
            yield DaskAddress(inbox.name, socket)
    finally:
        dispatcher.cancel()
        await asyncio.wait({dispatcher})
        _give_up(client, [inbox] * (1 + len(received)))


async def _dispatch(
    client: Client,
    inbox: Queue,
    serve: Callable[[Link], Coroutine[Any, Any, None]],
    received: dict[str, asyncio.Queue[bytes]],
    on_lost: Callable[[], None],
) -> None:
    """Serve the link of each worker."""
    served = set()
    try:
        while True:
            name, content = await _in_loop(client, inbox.get(asynchronous=True))
            if name not in received:
                queue = received[name] = asyncio.Queue[bytes]()
                to = await _queue(name, client)
                link = DaskLink(client, to, queue.get, name, (to, to))
                served.add(asyncio.ensure_future(serve(link)))
            received[name].put_nowait(bytes(content))
    finally:
        on_lost()
        for one in served:
            one.cancel()
        if served:
            await asyncio.wait(served)


async def _queue(name: str, client: Client) -> Queue:
    return await asyncio.to_thread(Queue, name, client)  # in Dask's own loop it would be created twice


def _give_up(client: Client, opened: Iterable[Queue]) -> None:
    """Close queues. The scheduler deletes one that is closed as often as it was opened, and ignores further closings.

    Both ends close for both: a process that was killed does not, and a cluster outlives many batches.
    """

    def close() -> None:
        with suppress(OSError):  # the scheduler is gone
            for queue in opened:
                queue.close()

    client.loop.add_callback(close)


async def _in_loop(client: Client, work: Coroutine[Any, Any, T]) -> T:
    """Await work in the client's loop."""
    loop: Any = client.loop
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop.asyncio_loop))
