"""Kernels without a network, one for each session that runs code. Their variables stay.

A kernel is in a container where there is an engine, else in bubblewrap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlm_kernel._async import shielded
from rlm_kernel.errors import KernelError, RLMError
from rlm_kernel.gateway.refusals import FailedError, LimitExceededError, NotFoundError, UnavailableError
from rlm_kernel.gateway.sessions import Session
from rlm_kernel.kernel.session import Session as Kernel
from rlm_kernel.provisioners import cgroups
from rlm_kernel.provisioners.kernelspecs import Environment, environment
from rlm_kernel.provisioners.sandbox import walls
from rlm_kernel.types import Answer, CellResult, Query, ToolCall

MAX_KERNELS = 8
"""Of one gateway."""
MIN_MEMORY_MB = 128
"""A kernel needs this much to start."""
UNAVAILABLE = (
    "exec.run is not available on the host of the gateway: no container engine answered (start Docker there), and "
)
NO_MEMORY_LIMIT = "bubblewrap cannot limit the memory of all processes together: it needs control groups"
SHOWN = "bubblewrap shows the folder of the repository: move it out of /usr, /opt and the folders of Python"
_FEW_PROCESSES = "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (64, 64)); del resource"


def in_container(memory: str) -> Environment:
    """A container without a network."""
    return environment("docker", {"memory": memory, "network": "none"})


def in_sandbox(memory: str) -> Environment:
    """A process in bubblewrap. Landlock is not enough: it leaves socket files open.

    Raises:
        UnavailableError: this host has no bubblewrap, or cannot limit its memory.
    """
    why = walls.trouble("bwrap") or ("" if cgroups.limit_memory() else NO_MEMORY_LIMIT)
    if why:
        raise UnavailableError(UNAVAILABLE + why)
    return environment("local", {"memory": memory, "sandbox": "bwrap", "setup_code": _FEW_PROCESSES})


class _NoModels:
    """Answers `llm_query` of the kernel: there is no model here."""

    async def answer(self, query: Query | ToolCall) -> Sequence[Answer]:
        """An error for each prompt."""
        return [Answer(error="exec.run has no model: use rlm.complete")] * len(getattr(query, "prompts", "1"))


@dataclass
class _Place:
    """The kernel of a session."""

    memory: int = 0
    kernel: Kernel | None = None
    end: asyncio.TimerHandle | None = None
    is_starting: bool = False
    is_closed: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Kernels:
    """The kernels of a gateway, by session. Use it in one event loop.

    Args:
        root: the repository, which no kernel may see.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._places: dict[str, _Place] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def run(self, session: Session, code: str, seconds: float, memory: int) -> CellResult:
        """Run a cell. The kernel ends with the time of the session, with all that its cells have started.

        Args:
            session: whose kernel.
            code: the cell.
            seconds: after which it is stopped.
            memory: MB that the kernel and its processes may use. Another value than before starts a new kernel.

        Raises:
            RefusedError: no kernel could be started, or there are too many.
        """
        place = self._places.setdefault(session.id, _Place())
        async with place.lock:
            if place.end is None:
                left = session.config.timeout_ms - session.age_ms
                place.end = asyncio.get_running_loop().call_later(left / 1000, self._end, session.id)
            if place.kernel is None or not place.kernel.alive or place.memory != memory:
                await self._start(place, memory)
            assert place.kernel is not None
            try:
                return await place.kernel.run(code, seconds)
            except KernelError:
                raise FailedError("The kernel ended while the code ran. Its variables are lost.") from None
            except asyncio.CancelledError:  # the cell would go on, and keep the next one waiting
                await shielded(place.kernel.close())
                raise

    async def close(self, session: str) -> None:
        """End the kernel of a session."""
        place = self._places.pop(session, None)
        if place is None:
            return
        place.is_closed = True
        if place.end is not None:
            place.end.cancel()
        if place.kernel is not None:
            await place.kernel.close()

    async def close_all(self) -> None:
        """End all kernels."""
        for session in list(self._places):
            await self.close(session)
        await asyncio.gather(*self._closing)

    def _end(self, session: str) -> None:
        task = asyncio.get_running_loop().create_task(self.close(session))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _start(self, place: _Place, memory: int) -> None:
        if place.kernel is not None:
            await place.kernel.close()
        place.kernel = None
        live = sum(other.kernel is not None or other.is_starting for other in self._places.values())
        if live >= MAX_KERNELS:
            raise LimitExceededError(f"Too many sessions run code: {live} >= {MAX_KERNELS}. Close one.")
        place.is_starting = True
        try:
            place.kernel = await self._open(f"{memory}m")
        finally:
            place.is_starting = False
        place.memory = memory
        if place.is_closed:
            await place.kernel.close()
            raise NotFoundError("Session not found")

    async def _open(self, memory: str) -> Kernel:
        try:
            return await Kernel.open(in_container(memory), _NoModels())
        except (RLMError, ImportError):
            if walls.shows(self._root):
                raise UnavailableError(UNAVAILABLE + SHOWN) from None
            return await _open_in_sandbox(memory)


async def _open_in_sandbox(memory: str) -> Kernel:
    where = await asyncio.to_thread(in_sandbox, memory)
    try:
        return await Kernel.open(where, _NoModels())
    except RLMError:
        raise UnavailableError(UNAVAILABLE + "the kernel in bubblewrap did not start") from None
