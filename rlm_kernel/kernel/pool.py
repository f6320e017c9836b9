"""Kernels that are started ahead of use. One that is taken is replaced in the background.

There is one pool for each environment with its options (`environment_kwargs={"pool": 4}`) and each seed, for the life
of the process. A kernel is taken once: no run sees the state of another.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import json
import os

from rlm_kernel.errors import KernelError, RLMError
from rlm_kernel.kernel.channels import Receiver
from rlm_kernel.kernel.process import Kernel
from rlm_kernel.provisioners.kernelspecs import Environment

AT_EXIT_SECONDS = 5.0

_pools: dict[tuple[asyncio.AbstractEventLoop, str], Pool] = {}


async def take_kernel(environment: Environment, seed: int | None, receiver: Receiver) -> Kernel:
    """An unused kernel, from the pool if the environment has one. The caller ends it.

    Raises:
        KernelError: it did not start.
        ConfigError: it is attachable, and the folder of connection files is not safe.
    """
    found = await _kernel(environment, seed, receiver)
    if environment.attachable:
        try:
            found.announce(environment.name)
        except BaseException:
            await found.kill()
            raise
    return found


async def _kernel(environment: Environment, seed: int | None, receiver: Receiver) -> Kernel:
    if not environment.pool:
        return await Kernel.start(environment.load(seed), receiver)
    return await _pool(environment, seed).take(receiver)


def _pool(environment: Environment, seed: int | None) -> Pool:
    what = json.dumps([environment.kernelspec, environment.options, environment.pool, seed], default=repr)
    key = asyncio.get_running_loop(), what
    if key not in _pools:
        _close_at_exit()
        _pools[key] = Pool(environment, seed)
    return _pools[key]


async def fill(environment: Environment, seed: int | None) -> None:
    """Start the pool of an environment and return when all its kernels answer. Does nothing without a pool.

    Raises:
        KernelError: one did not start.
    """
    if environment.pool:
        await _pool(environment, seed).wait_until_filled()


async def close() -> None:
    """End the kernels of the pools of this event loop. New ones are started when they are needed."""
    loop = asyncio.get_running_loop()
    mine = [key for key in _pools if key[0] is loop]
    await asyncio.gather(*(_pools.pop(key).close() for key in mine))


class Pool:
    """Kernels of one environment that are ready or starting. Used in one event loop.

    When none is ready, one more is started, so a caller never waits longer than without a pool.
    """

    def __init__(self, environment: Environment, seed: int | None) -> None:
        self._environment = environment
        self._seed = seed
        self._starting: list[asyncio.Task[Kernel]] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._closed = False
        self._fill()

    async def take(self, receiver: Receiver) -> Kernel:
        """A kernel that is ready, or the first that becomes ready.

        Raises:
            KernelError: none could be started, or the pool was closed meanwhile.
        """
        while True:
            taken = (await self._first()).result()
            if not taken.died.done():
                taken.channels.listen(receiver)
                return taken
            await taken.kill()

    async def wait_until_filled(self) -> None:
        """Return when all of them answer.

        Raises:
            KernelError: one did not start.
        """
        self._forget_failures()
        self._fill()
        while waiting := [task for task in self._starting if not task.done()]:
            await asyncio.wait(waiting)
        for task in self._starting:
            task.result()

    async def close(self) -> None:
        """End all kernels that were not taken."""
        self._closed = True
        self._end_all_but(0)
        await asyncio.gather(*self._ending)

    async def _first(self) -> asyncio.Task[Kernel]:
        """A kernel that is ready, or the first that becomes ready. It is replaced."""
        self._forget_failures()
        self._waiting += 1
        self._fill()
        try:
            done = await self._done()
        except BaseException:
            self._waiting -= 1
            self._end_all_but(self._wanted)
            raise
        self._waiting -= 1
        found = next((task for task in done if not _has_failed(task)), done[0])
        self._starting.remove(found)
        self._fill()
        return found

    async def _done(self) -> list[asyncio.Task[Kernel]]:
        """Those that are ready or have failed; at least one."""
        while not (done := [task for task in self._starting if task.done()]):
            if self._closed:
                raise KernelError("The pool was closed while a kernel of it was waited for.")
            await asyncio.wait(self._starting, return_when=asyncio.FIRST_COMPLETED)
        return done

    @property
    def _wanted(self) -> int:
        return self._environment.pool + self._waiting

    def _forget_failures(self) -> None:
        """Drop starts that failed before this request: their cause may be gone."""
        self._starting = [task for task in self._starting if not (task.done() and _has_failed(task))]

    def _end_all_but(self, kept: int) -> None:
        """End the latest ones in the background."""
        surplus, self._starting = self._starting[kept:], self._starting[:kept]
        if surplus:
            ending = asyncio.create_task(_end(surplus))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    def _fill(self) -> None:
        while not self._closed and len(self._starting) < self._wanted:
            task = asyncio.create_task(self._start())
            task.add_done_callback(_has_failed)
            self._starting.append(task)

    async def _start(self) -> Kernel:
        started = await Kernel.start(self._environment.load(self._seed), Receiver())
        try:
            await started.warm()
        except BaseException:
            await started.kill()
            raise
        return started


async def _end(tasks: list[asyncio.Task[Kernel]]) -> None:
    """End kernels that are running or starting."""
    for task in tasks:
        task.cancel()
    for started in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(started, Kernel):
            await started.kill()


def _has_failed(task: asyncio.Task[Kernel]) -> bool:
    """Whether a start failed. Retrieving the error keeps asyncio from logging it: `take` raises it."""
    return task.cancelled() or task.exception() is not None


@functools.cache
def _close_at_exit() -> None:
    """Close the pools at exit: their kernels end with the process anyway, but not their directories."""
    atexit.register(_close_all)


def _close_all() -> None:
    loops = {loop for loop, _ in _pools if loop.is_running()}
    for loop in loops:
        with contextlib.suppress(TimeoutError, RLMError):
            asyncio.run_coroutine_threadsafe(close(), loop).result(AT_EXIT_SECONDS)


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_pools.clear)
