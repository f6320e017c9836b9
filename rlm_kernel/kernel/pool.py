"""Kernels that are started ahead of use, with the guest in them. One that is taken is replaced in the background.

A replacement takes no CPU from running cells. It is started when none runs, or when somebody waits for it. (A process
of an ordinary user cannot leave a low priority that it had while it started, so priorities do not help.)

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
from collections.abc import Iterator

from rlm_kernel._async import seconds_at_exit
from rlm_kernel.errors import KernelError, RLMError
from rlm_kernel.kernel.channels import Receiver
from rlm_kernel.kernel.installation import install_guest
from rlm_kernel.kernel.process import Kernel
from rlm_kernel.provisioners.kernelspecs import Environment

AT_EXIT_SECONDS = 5.0
REFILL_SECONDS = 0.02
"""From the taking of a kernel, or the end of a cell, to the start of replacements: the next cell may follow at once."""

_pools: dict[tuple[asyncio.AbstractEventLoop, str], Pool] = {}
_cells: dict[asyncio.AbstractEventLoop, int] = {}
"""How many cells run."""


@contextlib.contextmanager
def running_cell() -> Iterator[None]:
    """Around a cell: pools of this event loop are not refilled while it runs."""
    loop = asyncio.get_running_loop()
    _cells[loop] = _cells.get(loop, 0) + 1
    try:
        yield
    finally:
        _cells[loop] -= 1
        if not _cells[loop]:
            del _cells[loop]
            for pool in [pool for (of, _), pool in _pools.items() if of is loop]:
                pool.refill_soon()


async def take_kernel(environment: Environment, seed: int | None, receiver: Receiver) -> Kernel:
    """An unused kernel with the guest in it, from the pool if the environment has one. The caller ends it.

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
        return await _start(environment, seed, receiver)
    return await _pool(environment, seed).take(receiver)


async def _start(environment: Environment, seed: int | None, receiver: Receiver, *, is_second: bool = False) -> Kernel:
    """Start a kernel; one more if it is killed before it answers, for example by the code of another kernel."""
    started = await Kernel.start(environment.load(seed), receiver)
    try:
        await install_guest(started, seed, receiver)
    except BaseException as error:
        await started.kill()
        if is_second or not isinstance(error, KernelError) or not started.was_killed:
            raise
    else:
        return started
    return await _start(environment, seed, receiver, is_second=True)


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

    When none is ready or starting, one is started, so a caller never waits longer than without a pool.
    """

    def __init__(self, environment: Environment, seed: int | None) -> None:
        self._environment = environment
        self._seed = seed
        self._starting: list[asyncio.Task[Kernel]] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._closed = False
        self._refill: asyncio.TimerHandle | None = None

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
        self._fill(self._wanted)
        while waiting := [task for task in self._starting if not task.done()]:
            await asyncio.wait(waiting)
        for task in self._starting:
            task.result()

    async def close(self) -> None:
        """End all kernels that were not taken."""
        self._closed = True
        if self._refill is not None:
            self._refill.cancel()
        self._end_all_but(0)
        await asyncio.gather(*self._ending)

    async def _first(self) -> asyncio.Task[Kernel]:
        """A kernel that is ready, or the first that becomes ready. It is replaced."""
        self._forget_failures()
        self._waiting += 1
        self._fill(self._waiting)
        try:
            done = await self._done()
        except BaseException:
            self._waiting -= 1
            self._end_all_but(self._wanted)
            raise
        self._waiting -= 1
        found = next((task for task in done if not _has_failed(task)), done[0])
        self._starting.remove(found)
        self.refill_soon()
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

    def refill_soon(self) -> None:
        """Start what is missing in a moment, unless a cell runs then."""
        if self._refill is None and not self._closed and len(self._starting) < self._wanted:
            self._refill = asyncio.get_running_loop().call_later(REFILL_SECONDS, self._refill_now)

    def _refill_now(self) -> None:
        self._refill = None
        if asyncio.get_running_loop() not in _cells:
            self._fill(self._wanted)

    def _fill(self, number: int) -> None:
        """Start kernels until this many are ready or starting."""
        while not self._closed and len(self._starting) < number:
            task = asyncio.create_task(_start(self._environment, self._seed, Receiver()))
            task.add_done_callback(_has_failed)
            self._starting.append(task)


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
            asyncio.run_coroutine_threadsafe(close(), loop).result(seconds_at_exit(AT_EXIT_SECONDS))


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_pools.clear)
