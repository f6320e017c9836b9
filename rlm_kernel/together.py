"""Do things at once, and leave nothing running when one of them fails; and things that block, each in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import copy_context
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


async def in_own_thread(work: Callable[[], T]) -> T:
    """Like `asyncio.to_thread`, with a thread for each call: work that waits for us must not fill our pool of threads.

    A thread that does not end keeps no process from ending.
    """
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # nothing stops a thread

    def carry() -> None:
        try:
            result = work()
        except StopIteration as error:  # no future carries it
            outcome.set_exception(RuntimeError(f"raised StopIteration: {error}"))
        except BaseException as error:  # noqa: BLE001 (it is raised where it is awaited)
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    threading.Thread(target=copy_context().run, args=[carry], daemon=True).start()
    return await asyncio.wrap_future(outcome)
