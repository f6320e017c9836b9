"""Answer the questions of cells with models, without a run: for a replay, or for a notebook."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rlm_kernel.api import RLM
from rlm_kernel.engine.journal import Slot
from rlm_kernel.engine.loop import Engine
from rlm_kernel.trajectory.events import OnEvent
from rlm_kernel.types import Answer, Query, ToolCall, UsageSummary


class LiveResponder:
    """Answers as the sub-calls of an RLM would be: its models, its limits, children for `rlm_query`.

    Args:
        rlm: whose models and limits; its tools are called, too.
        on_event: is told of every answer.
    """

    def __init__(self, rlm: RLM, on_event: OnEvent = lambda _: None) -> None:
        self._engine = Engine(rlm.config, on_event)

    @property
    def usage(self) -> UsageSummary:
        """What its answers cost so far."""
        return self._engine.usage.summary()

    async def answer(self, cell: int, question: Query | ToolCall, slots: Sequence[Slot]) -> Sequence[Answer]:
        """The answers of a question, in order, while the limits allow.

        Raises:
            LimitError: they do not.
        """
        self._engine.subcalls.cell = cell
        try:
            async with asyncio.timeout(self._engine.ledger.seconds_left) as deadline:
                return await self._engine.subcalls.answer(question, slots)
        except TimeoutError:
            if deadline.expired():
                raise self._engine.ledger.timed_out() from None
            raise
