"""Answer the questions of cells with models, outside of a run: for a replay or a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlm_kernel.api import RLM
from rlm_kernel.engine.loop import Engine
from rlm_kernel.engine.shared_limits import Admission
from rlm_kernel.types import Answer, Query, ToolCall, UsageSummary


class LiveResponder:
    """A `Responder` that answers as the sub-calls of an RLM would: its models, its limits, children for `rlm_query`.

    Args:
        rlm: whose models, limits and tools are used.
        shared: the limits that it shares with others, or None.
    """

    def __init__(self, rlm: RLM, shared: Admission | None = None) -> None:
        self._engine = Engine(replace(rlm.config, shared=shared), lambda _: None)

    @property
    def usage(self) -> UsageSummary:
        """The cost of its answers so far."""
        return self._engine.usage.summary()

    async def answer(self, question: Query | ToolCall) -> Sequence[Answer]:
        """The answers to a question, in order.

        Raises:
            LimitError: a limit is reached.
        """
        async with self._engine.ledger.deadline():
            return await self._engine.subcalls.answer(question)
