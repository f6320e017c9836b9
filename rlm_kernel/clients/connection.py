"""A client of an SDK, built at its first use, in a thread, once for an event loop.

In a thread, because importing an SDK takes half a second to five. Once for a loop, because connections belong to one; a
forked child has another loop than its parent.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Closable(Protocol):
    """What a `Connection` can hold."""

    async def close(self) -> None:
        """Give up connections."""


C = TypeVar("C", bound=Closable)


@dataclass(frozen=True, slots=True)
class _Opened(Generic[C]):
    """A client, and what is done with it beside the first calls."""

    client: C
    errand: asyncio.Task[None]


class Connection(Generic[C]):
    """Opens a client when it is first asked for.

    Args:
        open_client: builds it; called in a thread.
        errand: what is done with it beside the first calls. It must not raise, and is cancelled by `close`.
    """

    def __init__(self, open_client: Callable[[], C], errand: Callable[[C], Coroutine[Any, Any, None]]) -> None:
        self._open = open_client
        self._send = errand
        self._opening: asyncio.Task[_Opened[C]] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def client(self) -> C:
        """The client of the running loop. What opening it raises is raised, and the next call tries again."""
        self._move()
        if self._opening is None or _has_failed(self._opening):
            self._opening = asyncio.create_task(self._opened())
        # Shielded here and below: a thread cannot be cancelled, and what it opens must be found when all is closed.
        return (await asyncio.shield(self._opening)).client

    async def errand(self) -> None:
        """Await the end of the errand."""
        if self._opening is not None:
            await asyncio.wait({(await asyncio.shield(self._opening)).errand})

    async def close(self) -> None:
        """Close the client, also one that is being opened. A later call opens a new one."""
        self._move()
        opening, self._opening = self._opening, None
        if opening is not None:
            self._closing = asyncio.create_task(_close(opening, after=self._closing))
        if (closing := self._closing) is not None:
            try:
                await asyncio.shield(closing)
            finally:
                if closing.done() and closing is self._closing:
                    self._closing = None

    async def _opened(self) -> _Opened[C]:
        client = await asyncio.to_thread(self._open)
        return _Opened(client, asyncio.create_task(self._send(client)))

    def _move(self) -> None:
        """Forget what belongs to another loop than the running one."""
        if self._loop is not asyncio.get_running_loop():
            self._loop = asyncio.get_running_loop()
            self._opening = self._closing = None


async def _close(opening: asyncio.Task[_Opened[C]], after: asyncio.Task[None] | None) -> None:
    """Close what is or will be opened, when an earlier closing is over."""
    await asyncio.wait({opening, *([after] if after else [])})
    if _has_failed(opening):
        return
    opened = opening.result()
    opened.errand.cancel()
    await asyncio.wait({opened.errand})
    await opened.client.close()


def _has_failed(opening: asyncio.Task[Any]) -> bool:
    return opening.done() and (opening.cancelled() or opening.exception() is not None)
