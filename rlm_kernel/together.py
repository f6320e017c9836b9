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
        await asyncio.wait(tasks)
