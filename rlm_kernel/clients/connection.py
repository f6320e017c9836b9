"""A client of an SDK, built at first use, in a thread, once for an event loop.

In a thread, because importing an SDK takes half a second to five. Once for a loop, because connections belong to one; a
forked child has another loop than its parent.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Closable(Protocol):
    """What a `Connection` can hold."""

    async def close(self) -> None:
        """Give up connections."""


C = TypeVar("C", bound=Closable)


class Connection(Generic[C]):
    """Opens a client when it is first asked for.

    Args:
        open_client: builds it; called in a thread.
        errand: what is done with it beside the first calls. It must not raise, and is cancelled by `close`.
    """

    def __init__(self, open_client: Callable[[], C], errand: Callable[[C], Coroutine[Any, Any, None]]) -> None:
        self._open = open_client
        self._send = errand
        self._client: C | None = None
        self._errand: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()

    async def client(self) -> C:
        """The client of the running loop."""
        self._move()
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(self._open)
                self._errand = asyncio.create_task(self._send(self._client))
            return self._client

    async def errand(self) -> None:
        """Await the end of the errand."""
        if self._errand is not None:
            await asyncio.wait({self._errand})

    async def close(self) -> None:
        """Close the client. A later call opens a new one."""
        self._move()
        client, self._client = self._client, None
        errand, self._errand = self._errand, None
        if errand is not None:
            errand.cancel()
            await asyncio.wait({errand})
        if client is not None:
            await client.close()

    def _move(self) -> None:
        """Forget what belongs to another loop than the running one."""
        if self._loop is not asyncio.get_running_loop():
            self._loop, self._opening = asyncio.get_running_loop(), asyncio.Lock()
            self._client = self._errand = None
