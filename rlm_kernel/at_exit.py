"""Close at exit what an RLM that was not closed has open: connections to models, and remote kernels.

Nobody else ends a sandbox or a kernel of a server, and aiohttp reports open connections on stderr.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

from rlm_kernel._async import engine_loop, start_in_thread

AT_EXIT_SECONDS = 5.0


class Closable(Protocol):
    """Has something to end in the engine's loop."""

    async def close(self) -> None:
        """End it. Idempotent."""
        ...


_live: weakref.WeakSet[Closable] = weakref.WeakSet()

if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_live.clear)  # they are the parent's


def end_at_exit(open_here: Closable) -> None:
    """Close it at exit in the engine's loop, if it still exists.

    Functions that are registered later are called earlier: at that time the client that `close` uses still works.
    """
    _register(type(open_here))
    _live.add(open_here)


@functools.cache
def _register(_: type[Closable]) -> None:
    atexit.register(_end_all)


def _end_all() -> None:
    if _live:
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_close(list(_live)), engine_loop()).result(AT_EXIT_SECONDS)


class _Threads(ThreadPoolExecutor):
    """Runs each job in a thread of its own. Python's pools take no jobs at exit, and aiohttp looks up names in one."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return start_in_thread(partial(work, *args, **kwargs))


async def _close(live: Iterable[Closable]) -> None:
    asyncio.get_running_loop().set_default_executor(_Threads())
    await asyncio.gather(*(one.close() for one in live))
