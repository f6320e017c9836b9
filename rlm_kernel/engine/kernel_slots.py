"""How many kernels a tree of runs may have at a time, and which run gets the next one.

A run at some depth keeps its kernel while it waits for its children, so there can be a deadlock: if
the runs of upper levels held all kernels, those below would wait for ever, and the upper ones for them. So each
admission leaves as many kernels free as there are levels below it. Then the deepest run that holds a kernel can always
start a child, or starts none, so it ends; by induction all runs end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from rlm_kernel.errors import ConfigError

KERNEL_BYTES = 200_000_000
"""Memory of one kernel: 63 MB at its start, and room for the data of cells."""

MAX_BY_DEFAULT = 32
_CGROUP = Path("/sys/fs/cgroup")


class KernelSlots:
    """The kernels of one tree. Used in one event loop; the root has its kernel from the start.

    Args:
        limit: how many there may be at a time.
        deepest: the deepest level that has kernels; the root is on level 0.
    """

    def __init__(self, limit: int, deepest: int) -> None:
        self.in_use = 1
        self._limit = limit
        self._deepest = deepest
        self._waiting: list[tuple[int, object]] = []
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def turn(self, level: int) -> AsyncIterator[None]:
        """Around the life of a kernel on a level: waits until there may be one. Deep ones go first, then older ones."""
        place = (level, object())
        self._waiting.append(place)
        try:
            while self._next() is not place:
                await self._changed.wait()
            self.in_use += 1
        finally:
            self._waiting.remove(place)
            self._wake()
        try:
            yield
        finally:
            self.in_use -= 1
            self._wake()

    def _next(self) -> tuple[int, object] | None:
        admissible = [place for place in self._waiting if self._admits(place[0])]
        return max(admissible, key=lambda place: place[0], default=None)

    def _admits(self, level: int) -> bool:
        """Whether there is room for a kernel of this level and, below it, for one on each deeper level."""
        return self.in_use + self._deepest - level < self._limit

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def needed(levels: int, pooled: int) -> int:
    """The fewest kernels with which a tree can end: one on each level, and those that wait in a pool."""
    return max(1, levels) + pooled


def check_max_kernels(given: int | None, levels: int, pooled: int) -> None:
    """Check that a limit lets every run of a tree get its kernel.

    Raises:
        ConfigError: the limit is too low.
    """
    if given is None or given >= needed(levels, pooled):
        return
    pool = f", and the pool keeps {pooled} that wait" if pooled else ""
    raise ConfigError(
        f"max_kernels={given} is too few: on {levels} levels (depth to max_depth - 1) a run keeps its kernel while it "
        f"waits for the one below it{pool}. Give {needed(levels, pooled)} or more, or a lower max_depth."
    )


def default_max_kernels(levels: int, pooled: int) -> int:
    """As many as fit into the free memory, at most `MAX_BY_DEFAULT`, and at least as many as are needed."""
    return max(needed(levels, pooled), min(MAX_BY_DEFAULT + pooled, available_memory() // KERNEL_BYTES))


def available_memory() -> int:
    """Free memory in bytes, of the machine or of this container."""
    import psutil

    machine: int = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # no control groups, or "max"
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        return min(machine, max(0, limit - used))
    return machine
