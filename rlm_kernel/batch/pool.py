"""Run the tasks of a batch, a bounded number at a time, and give their results as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rlm_kernel._async import shielded
from rlm_kernel.batch.results import TaskResult
from rlm_kernel.batch.tasks import Task

RunTask = Callable[[Task], Awaitable[TaskResult]]
"""Runs a task. It raises only what has to end the whole batch."""


@dataclass(slots=True)
class _Outbox:
    """Results on their way to the caller, in the order of their ends or of the tasks."""

    ordered: bool
    ready: asyncio.Queue[TaskResult | BaseException | None]
    waiting: dict[int, TaskResult] = field(default_factory=dict)
    next: int = 0

    def put(self, number: int, result: TaskResult) -> None:
        if not self.ordered:
            self.ready.put_nowait(result)
            return
        self.waiting[number] = result
        while self.next in self.waiting:
            self.ready.put_nowait(self.waiting.pop(self.next))
            self.next += 1


async def run_tasks(
    tasks: Iterable[Task], run: RunTask, *, max_concurrent: int, ordered: bool = False
) -> AsyncGenerator[TaskResult]:
    """The results of tasks. Leaving the loop early, or cancelling it, stops the runs in progress.

    Tasks are taken from the iterable when there is room for them. A caller who is slow to take results does not stop
    the runs.

    Args:
        tasks: the tasks; an error of the iterable ends the batch.
        run: runs one.
        max_concurrent: runs in progress.
        ordered: results in the order of the tasks.
    """
    outbox = _Outbox(ordered, asyncio.Queue())
    numbered = enumerate(tasks)
    left = max_concurrent

    async def work() -> None:
        nonlocal left
        try:
            for number, task in _shared(numbered):
                outbox.put(number, await run(task))
        except BaseException as error:
            outbox.ready.put_nowait(error)
            raise
        finally:
            left -= 1
            if left == 0:
                outbox.ready.put_nowait(None)

    workers = [asyncio.ensure_future(work()) for _ in range(max_concurrent)]
    try:
        while (result := await outbox.ready.get()) is not None:
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        for worker in workers:
            worker.cancel()
        await shielded(_ended(workers))


def _shared(numbered: Iterator[tuple[int, Task]]) -> Iterator[tuple[int, Task]]:
    """The rest of an iterator that several workers take from, each when it has room."""
    while (one := next(numbered, None)) is not None:
        yield one


async def _ended(workers: Sequence[asyncio.Future[None]]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*workers, return_exceptions=True)
