"""Kernels without a network, one for each session that runs code. Their variables stay."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlm_kernel._async import shielded
from rlm_kernel.errors import RLMError
from rlm_kernel.gateway.refusals import LimitExceededError, UnavailableError
from rlm_kernel.kernel.session import Session as Kernel
from rlm_kernel.provisioners.kernelspecs import environment
from rlm_kernel.types import Answer, CellResult, Query, ToolCall

ENVIRONMENT = "docker"
MAX_KERNELS = 8
"""Of one gateway."""
MIN_MEMORY_MB = 128
"""A kernel needs this much to start."""
NO_ENGINE = (
    "exec.run is not available: no container engine answered on the host of the gateway. "
    "Start a Docker engine there and install rlm-kernel[docker,mcp]."
)


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
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Kernels:
    """The kernels of a gateway, by session. Use it in one event loop."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}

    async def run(self, session: str, code: str, seconds: float, memory: int) -> CellResult:
        """Run a cell.

        Args:
            session: whose kernel.
            code: the cell.
            seconds: after which it is stopped.
            memory: MB that the container may use. Another value than before starts a new kernel.

        Raises:
            RefusedError: no kernel could be started, or there are too many.
        """
        place = self._places.setdefault(session, _Place())
        async with place.lock:
            if place.kernel is None or not place.kernel.alive or place.memory != memory:
                await self._start(place, memory)
            assert place.kernel is not None
            try:
                return await place.kernel.run(code, seconds)
            except asyncio.CancelledError:  # the cell would go on, and keep the next one waiting
                await shielded(place.kernel.close())
                raise

    async def close(self, session: str) -> None:
        """End the kernel of a session."""
        place = self._places.pop(session, None)
        if place is not None and place.kernel is not None:
            await place.kernel.close()

    async def close_all(self) -> None:
        """End all kernels."""
        for session in list(self._places):
            await self.close(session)

    async def _start(self, place: _Place, memory: int) -> None:
        if place.kernel is not None:
            await place.kernel.close()
        place.kernel = None
        live = sum(other.kernel is not None for other in self._places.values())
        if live >= MAX_KERNELS:
            raise LimitExceededError(f"Too many sessions run code: {live} >= {MAX_KERNELS}. Close one.")
        try:
            where = environment(ENVIRONMENT, {"memory": f"{memory}m", "network": "none"})
            place.kernel = await Kernel.open(where, _NoModels())
        except (RLMError, ImportError):
            raise UnavailableError(NO_ENGINE) from None
        place.memory = memory
