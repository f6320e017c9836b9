"""The engine's event loop, and structured concurrency in it.

There is one loop for the whole process, in a thread of its own. A synchronous call waits for it, also inside a running
loop such as a notebook's; an asynchronous call awaits it. Model clients and kernels therefore live in one loop and are
shared freely, and a caller's loop that is blocked does not stall a kernel.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import math
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError as Cancelled
from concurrent.futures import Future, wait
from contextvars import copy_context
from typing import Any, Generic, TypeVar, overload

from rlm_kernel.errors import RLMError

T = TypeVar("T")
U = TypeVar("U")

_THREAD = "rlm-engine"
CLEANUP_SECONDS = 0.8
"""How long a batch that ends waits for the end of its runs in other processes."""
_STOP_SECONDS = 1.1
"""How long Ctrl-C waits for the end of what it interrupts."""
_LOOK_SECONDS = 0.5
"""How often a waiting thread wakes up. Python does not see a Ctrl-C that comes while a thread begins to wait."""
_EXIT_SECONDS = 0.2
"""How long each clean-up at exit takes after Ctrl-C, at most."""
_SOON_SECONDS = 5.0
"""A process that ends so soon after Ctrl-C ends because of it."""

SHORT_CHARACTERS = 20_000
"""A text up to this length is parsed in a few milliseconds at most. Two changes of thread cost as much."""

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None
_stopped_at = -math.inf


@overload
async def gather_or_cancel(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U], /) -> tuple[T, U]: ...
@overload
async def gather_or_cancel(*jobs: Coroutine[Any, Any, T]) -> tuple[T, ...]: ...
async def gather_or_cancel(*jobs: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """Run the jobs concurrently and return their results in order.

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
        await shielded(asyncio.wait(tasks))


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Await work that must not be interrupted, such as closing a kernel; a cancellation is raised afterwards.

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


def start_in_thread(work: Callable[[], T]) -> Future[T]:
    """Start the work in a thread of its own, which does not delay the end of the process. It cannot be cancelled."""
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # nothing stops a thread

    def carry() -> None:
        try:
            result = work()
        except (StopIteration, GeneratorExit, asyncio.CancelledError, Cancelled) as error:  # a future cannot hold them
            outcome.set_exception(RuntimeError(f"raised {type(error).__name__}: {error}"))
        except BaseException as error:  # noqa: BLE001 (it is raised where it is awaited)
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    threading.Thread(target=copy_context().run, args=[carry], daemon=True).start()
    return outcome


async def run_in_thread(work: Callable[[], T]) -> T:
    """Like `asyncio.to_thread`, with a thread for each call: work that waits for us must not fill our thread pool."""
    return await asyncio.wrap_future(start_in_thread(work))


async def without_stops(work: Awaitable[T]) -> T:
    """Await code of a user. A stop that it raises by itself is an error: else it would end the task without one.

    Raises:
        RuntimeError: it raised CancelledError or GeneratorExit, and nobody cancels the task.
    """
    try:
        return await work
    except (asyncio.CancelledError, GeneratorExit) as error:
        if is_stop(error):
            raise
        raise RuntimeError(f"raised {type(error).__name__}: {error}") from error


def is_stop(error: BaseException) -> bool:
    """Whether an error stops the running task or closes its coroutine. Code of a user may raise the same by itself."""
    if not isinstance(error, asyncio.CancelledError | GeneratorExit):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs
        return True
    return task is None or task.cancelling() > 0


async def process(characters: int, work: Callable[[], T]) -> T:
    """Do work on a text of this length: in a thread if it is long, because a deadline and Ctrl-C must not wait."""
    return work() if characters <= SHORT_CHARACTERS else await asyncio.to_thread(work)


def engine_loop() -> asyncio.AbstractEventLoop:
    """The loop, started at first use. A forked child gets one of its own."""
    global _loop, _thread  # noqa: PLW0603 (one for the process)
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_run, args=[_loop], name=_THREAD, daemon=True)
            _thread.start()
        return _loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop. A `sys.exit()` in a user's code must not end it: it is raised where the task is awaited."""
    while True:
        with contextlib.suppress(SystemExit, KeyboardInterrupt):
            loop.run_forever()
            return


def _forget_loop() -> None:
    global _lock, _loop, _thread  # the thread that forked may be the engine's; in the child it is the main one
    _lock, _loop, _thread = threading.Lock(), None, None


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_forget_loop)


def seconds_at_exit(usual: float) -> float:
    """How long a clean-up at exit may take, in seconds: little if Ctrl-C ends the process."""
    return _EXIT_SECONDS if _ctrl_c_ends_process() else usual


def _ctrl_c_ends_process() -> bool:
    return time.monotonic() - _stopped_at < _SOON_SECONDS


@atexit.register
def _skip_last_collection() -> None:
    """After Ctrl-C, leave cycles of objects to the system: to collect them takes 0.2 s, and a second under load."""
    if _ctrl_c_ends_process():
        gc.freeze()


def is_engine_loop(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this is the engine's loop."""
    return loop is _loop


class Job(Generic[T]):
    """A coroutine in the engine's loop. Other threads and loops can wait for it."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._outcome: Future[T] = Future()
        self._task: asyncio.Task[T] | None = None
        engine_loop().call_soon_threadsafe(self._start, work)

    def wait(self) -> T:
        """Block until it is done. A KeyboardInterrupt cancels it, waits for its clean-up, and is raised again.

        Raises:
            RLMError: called in the engine's own loop, which it would block.
        """
        if threading.current_thread() is _thread:
            raise RLMError("A synchronous call inside the engine's event loop would block it: await acompletion().")
        try:
            while wait([self._outcome], _LOOK_SECONDS).not_done:
                pass
        except KeyboardInterrupt:
            self.stop()
            raise
        return self._outcome.result()

    async def wait_async(self) -> T:
        """Await it in any loop. Cancelling the caller cancels it, and its clean-up is awaited."""
        outcome = asyncio.wrap_future(self._outcome)
        try:
            return await asyncio.shield(outcome)
        except asyncio.CancelledError:
            self.cancel()
            await asyncio.wait({outcome})
            raise

    async def ended_async(self) -> None:
        """Await its end, without its result or its error."""
        outcome = asyncio.wrap_future(self._outcome)
        await asyncio.wait({outcome})
        if not outcome.cancelled():
            outcome.exception()  # retrieved, else asyncio would report that it was not

    def on_end(self, tell: Callable[[], object]) -> None:
        """Call `tell`, in any thread, when it has ended; at once if it has."""
        self._outcome.add_done_callback(lambda _: tell())

    def cancel(self) -> None:
        """Ask it to stop; it cleans up first."""
        engine_loop().call_soon_threadsafe(self._cancel)

    def stop(self) -> None:
        """Ask it to stop, and give it `_STOP_SECONDS` to clean up."""
        global _stopped_at  # noqa: PLW0603 (one for the process)
        self.cancel()
        try:
            self._outcome.exception(_STOP_SECONDS)
        except (Cancelled, TimeoutError):
            return
        finally:
            _stopped_at = time.monotonic()

    def _cancel(self) -> None:
        # One step later: a task that has not started would end without its clean-up.
        if self._task is not None:
            engine_loop().call_soon(self._task.cancel)

    def _start(self, work: Coroutine[Any, Any, T]) -> None:
        self._task = engine_loop().create_task(work)
        self._task.add_done_callback(self._hand_over)

    def _hand_over(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self._outcome.cancel()
            self._outcome.set_running_or_notify_cancel()
        elif (error := task.exception()) is not None:
            self._outcome.set_exception(error)
        else:
            self._outcome.set_result(task.result())
