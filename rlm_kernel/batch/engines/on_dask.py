"""Links over a Dask cluster: queues of its scheduler, which workers and driver can both reach."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from distributed import Client, Queue, get_client

from rlm_kernel.batch.engines.messages import Link

T = TypeVar("T")

SILENCE_SECONDS = 60
"""A worker that hears nothing from the driver for so long takes it for dead. The driver sends something more often."""


class DaskLink:
    """A link over two queues. A queue is unbounded, so sending does not wait for the other end."""

    def __init__(self, client: Client, to: Queue, receive: Callable[[], Awaitable[bytes]], name: str) -> None:
        self._client, self._to, self._receive, self._name = client, to, receive, name
        self._broken = False

    async def send(self, content: bytes) -> None:
        """Send bytes."""
        if self._broken:  # Dask would try for 30 s each time
            return
        try:
            await _in_loop(self._client, self._to.put((self._name, content), asynchronous=True))
        except (OSError, AttributeError):  # a client that was closed has no connection any more
            self._broken = True

    async def receive(self) -> bytes:
        """The next bytes.

        Raises:
            EOFError: the other end is gone.
        """
        try:
            return await self._receive()
        except (OSError, asyncio.CancelledError) as error:  # Dask's TimeoutError is an OSError
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            raise EOFError from error

    def close(self) -> None:
        """Give up the queue."""
        self._to.close()


def _is_cancelled() -> bool:
    """Whether this task is cancelled, and not only Dask's."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@dataclass(frozen=True, slots=True)
class DaskAddress:
    """The name of the driver's queue."""

    name: str

    async def connect(self) -> Link:
        """Connect to the driver, in a task of Dask's."""
        client, name = await asyncio.to_thread(get_client), f"{self.name}-{secrets.token_hex(8)}"
        to, inbox = await _queue(self.name, client), await _queue(name, client)

        async def receive() -> bytes:
            _, content = await _in_loop(client, inbox.get(timeout=SILENCE_SECONDS, asynchronous=True))
            return bytes(content)

        return DaskLink(client, to, receive, name)


@asynccontextmanager
async def listen(client: Client, serve: Callable[[Link], Coroutine[Any, Any, None]]) -> AsyncIterator[DaskAddress]:
    """A context in which workers can connect.

    Args:
        client: of the cluster.
        serve: serves one link, until its other end is gone.
    """
    inbox = await _queue(f"rlm-{secrets.token_hex(8)}", client)
    dispatcher = asyncio.ensure_future(_dispatch(client, inbox, serve))
    try:
        yield DaskAddress(inbox.name)
    finally:
        dispatcher.cancel()
        await asyncio.wait({dispatcher})
        inbox.close()


async def _dispatch(client: Client, inbox: Queue, serve: Callable[[Link], Coroutine[Any, Any, None]]) -> None:
    """Serve the link of each worker."""
    received: dict[str, asyncio.Queue[bytes]] = {}
    served = set()
    try:
        while True:
            name, content = await _in_loop(client, inbox.get(asynchronous=True))
            if name not in received:
                queue = received[name] = asyncio.Queue[bytes]()
                link = DaskLink(client, await _queue(name, client), queue.get, name)
                served.add(asyncio.ensure_future(serve(link)))
            received[name].put_nowait(bytes(content))
    finally:
        for one in served:
            one.cancel()
        if served:
            await asyncio.wait(served)


async def _queue(name: str, client: Client) -> Queue:
    return await asyncio.to_thread(Queue, name, client)  # in Dask's own loop it would be created twice


async def _in_loop(client: Client, work: Coroutine[Any, Any, T]) -> T:
    """Await work in the client's loop."""
    loop: Any = client.loop
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop.asyncio_loop))
