"""Answer the calls of cells with models, without a run: for a replay, or for a notebook."""

from __future__ import annotations

from collections.abc import Sequence

from rlm_kernel.api import RLM
from rlm_kernel.engine.loop import Engine
from rlm_kernel.trajectory.events import OnEvent
from rlm_kernel.types import Answer, Query, ToolCall, UsageSummary


class LiveResponder:
    """A `Responder` that answers as the sub-calls of an RLM would: its models, its limits, children for `rlm_query`.

    Args:
        rlm: whose models and limits are used; its tools are called, too.
        on_event: called with the events of every answer.
    """

    def __init__(self, rlm: RLM, on_event: OnEvent = lambda _: None) -> None:
        self._engine = Engine(rlm.config, on_event)

    @property
    def usage(self) -> UsageSummary:
        """The usage of its answers so far."""
        return self._engine.usage.summary()

    async def answer(self, question: Query | ToolCall) -> Sequence[Answer]:
        """The answers of a question with slots, in order, while the limits allow.

        Raises:
            LimitError: they do not.
        """
        async with self._engine.ledger.deadline():
            return await self._engine.subcalls.answer(question)
