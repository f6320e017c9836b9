"""End remote kernels at exit, as local kernels end: nobody else ends a sandbox or a kernel of a server."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import weakref
from collections.abc import Iterable
from typing import Protocol

from rlm_kernel._async import engine_loop

AT_EXIT_SECONDS = 5.0


class Closable(Protocol):
    """Has something to end in the engine's loop."""

    async def close(self) -> None:
        """End it. Idempotent."""
        ...


_live: weakref.WeakSet[Closable] = weakref.WeakSet()


def end_at_exit(remote: Closable) -> None:
    """Close it at exit, if it still exists.

    Functions that are registered later are called earlier: at that time the client that `close` uses still works.
    """
    _register(type(remote))
    _live.add(remote)


@functools.cache
def _register(_: type[Closable]) -> None:
    atexit.register(_end_all)


def _end_all() -> None:
    if _live:
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_close(list(_live)), engine_loop()).result(AT_EXIT_SECONDS)


async def _close(remotes: Iterable[Closable]) -> None:
    await asyncio.gather(*(remote.close() for remote in remotes))
