"""The events of a run for an asynchronous caller."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from rlm_kernel._async import Job
from rlm_kernel.trajectory.events import Event, OnEvent
from rlm_kernel.trajectory.output_queue import OutputQueue
from rlm_kernel.types import RLMChatCompletion


async def stream_events(start: Callable[[OnEvent], Job[RLMChatCompletion]]) -> AsyncGenerator[Event]:
    """The events of a run as they happen. Leaving the loop early stops the run, and waits for its end.

    Args:
        start: starts the run with a reader of its events.

    Raises:
        BaseException: what the run raised, after its last event.
    """
    here, arrived, waiting = asyncio.get_running_loop(), asyncio.Queue[Event | None](), OutputQueue()

    def hand_over(event: Event) -> None:
        if waiting.add(event):
            here.call_soon_threadsafe(arrived.put_nowait, event)

    def end() -> None:
        with contextlib.suppress(RuntimeError):  # the caller's loop is closed
            here.call_soon_threadsafe(arrived.put_nowait, None)

    run = start(hand_over)
    run.on_end(end)
    try:
        while (event := await arrived.get()) is not None:
            waiting.take(event)
            yield event
        await run.wait_async()
    finally:
        run.cancel()
        await run.ended_async()
