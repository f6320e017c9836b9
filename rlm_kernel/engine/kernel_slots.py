"""How many kernels a tree of runs may have at a time, and who gets the next one.

A run at some depth keeps its kernel while it waits for its children, so kernels are like forks among philosophers: if
the shallow runs took all of them, the deep ones would wait for ever, and the shallow ones for them. So each admission
leaves as many free as there are levels below it. Then a run on the deepest level that holds a kernel can always start
a child, or has none to start; in the end one ends, and so do all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from rlm_kernel.errors import ConfigError

KERNEL_BYTES = 200_000_000
"""What one kernel takes of the host's memory: 63 MB when it starts, and what a cell keeps in it."""

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
    """See whether a bound lets every run of a tree have its kernel in the end.

    Raises:
        ConfigError: it does not.
    """
    if given is None or given >= needed(levels, pooled):
        return
    pool = f", and the pool keeps {pooled} that wait" if pooled else ""
    raise ConfigError(
        f"max_kernels={given} is too few: on {levels} levels (depth to max_depth - 1) a run keeps its kernel while it "
        f"waits for the one below it{pool}. Give {needed(levels, pooled)} or more, or a lower max_depth."
    )


def default_max_kernels(levels: int, pooled: int) -> int:
    """As many as fit into the memory that is free now, `MAX_BY_DEFAULT` at most, and no fewer than are needed."""
    return max(needed(levels, pooled), min(MAX_BY_DEFAULT + pooled, available_memory() // KERNEL_BYTES))


def available_memory() -> int:
    """Bytes that programs can still take: of the machine, or of the container that we are in."""
    import psutil

    machine: int = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # no control groups, or "max"
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        return min(machine, max(0, limit - used))
    return machine
