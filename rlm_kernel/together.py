"""Do things at once, and leave nothing running when one of them fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, overload

T = TypeVar("T")
U = TypeVar("U")


@overload
async def together(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U], /) -> tuple[T, U]: ...
@overload
async def together(*jobs: Coroutine[Any, Any, T]) -> tuple[T, ...]: ...
async def together(*jobs: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """Run the jobs at once and return their results in order.

    When one fails, or the caller is cancelled, the others are cancelled and their end awaited. The failure is raised as
    it is: a TaskGroup would wrap it.
    """
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        return tuple(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            if not task.cancelling():  # gather cancels them with us; twice would cut short their cleaning up
                task.cancel()
        await to_its_end(asyncio.wait(tasks))


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await what must not be cut short, such as the end of a kernel; a cancellation is raised when it is over.

    `asyncio.shield` would raise it at once, and leave the work to a loop that may be closed by then.
    """
    task, cancelled = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and (task.cancelled() or task.exception() is None):
        raise cancelled
    return task.result()
