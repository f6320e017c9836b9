"""A client of an SDK: built at its first use, in a thread, once per event loop.

In a thread, because importing an SDK takes half a second to five. Once per loop, because connections belong to a loop;
a forked child has another loop than its parent.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from rlm_kernel._async import is_engine_loop
from rlm_kernel.at_exit import end_at_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


@dataclass(frozen=True, slots=True)
class _Opened:
    """A client, and the task that runs in parallel with its first calls."""

    client: Any
    errand: asyncio.Task[None]


class Connection:
    """Opens a client when it is first needed.

    Args:
        open_client: builds the client, which has a coroutine `close`; called in a thread.
        errand: runs once, in parallel with the first calls. It must not raise, and `close` cancels it.
    """

    def __init__(self, open_client: Callable[[], Any], errand: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        self._open_client = open_client
        self._run_errand = errand
        self._openings: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[_Opened]] = WeakKeyDictionary()
        self._closings: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = WeakKeyDictionary()

    async def client(self) -> Any:
        """The client of the running loop. If opening it fails, the error is raised, and the next call tries again."""
        loop = asyncio.get_running_loop()
        opening = self._openings.get(loop)
        if opening is None or _has_failed(opening):
            self._openings[loop] = opening = asyncio.create_task(self._open())
        if opening.done():
            return opening.result().client
        # Shielded here and below: a thread cannot be cancelled, and `close` must find the client that it opens.
        return (await asyncio.shield(opening)).client

    async def wait_for_errand(self, seconds: float) -> None:
        """Wait at most so long for the errand of the running loop, after the client is open.

        Raises what opening the client does.
        """
        await self.client()
        if (opening := self._openings.get(asyncio.get_running_loop())) is not None:
            await asyncio.wait({opening.result().errand}, timeout=seconds)

    async def close(self) -> None:
        """Close the clients, also one that is still being opened. A later call opens a new one.

        The clients of other loops are closed there, without waiting for that.
        """
        here = asyncio.get_running_loop()
        for loop in list(self._openings):
            opening = self._openings.pop(loop)
            if loop is here:
                self._closings[here] = asyncio.create_task(_close(opening, after=self._closings.get(here)))
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(_close(opening, after=None), loop)
        if (closing := self._closings.get(here)) is not None:
            try:
                await asyncio.shield(closing)
            finally:
                if closing.done() and closing is self._closings.get(here):
                    del self._closings[here]

    async def _open(self) -> _Opened:
        client = await asyncio.to_thread(self._open_client)
        if is_engine_loop(asyncio.get_running_loop()):
            end_at_exit(self)
        return _Opened(client, asyncio.create_task(self._run_errand(client)))


async def _close(opening: asyncio.Task[_Opened], after: asyncio.Task[None] | None) -> None:
    """Close the client as soon as it is open and an earlier closing has ended."""
    await asyncio.wait({opening, *([after] if after else [])})
    if _has_failed(opening):
        return
    opened = opening.result()
    opened.errand.cancel()
    await asyncio.wait({opened.errand})
    await opened.client.close()


def _has_failed(opening: asyncio.Task[Any]) -> bool:
    return opening.done() and (opening.cancelled() or opening.exception() is not None)
