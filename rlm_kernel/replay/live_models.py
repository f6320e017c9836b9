"""Answer the questions of cells with models, outside of a run: for a replay or a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlm_kernel.api import RLM
from rlm_kernel.engine.loop import Engine
from rlm_kernel.engine.recorded import RecordedAnswer
from rlm_kernel.engine.shared_limits import Admission
from rlm_kernel.trajectory.events import CellStarted, ChildEvent, Event, SubcallAnswered, ToolCalled
from rlm_kernel.trajectory.notebook.calls import calls_output
from rlm_kernel.trajectory.tree import Trajectory
from rlm_kernel.types import Answer, Output, Query, Slot, ToolCall, UsageSummary


class LiveResponder:
    """A `Responder` that answers as the sub-calls of an RLM would: its models, its limits, children for `rlm_query`.

    Args:
        rlm: whose models, limits and tools are used.
        shared: the limits that it shares with others, or None.

    Attributes:
        answers: of models so far, failed calls not included.
        outcomes: of tools so far.
    """

    def __init__(self, rlm: RLM, shared: Admission | None = None) -> None:
        self._engine = Engine(replace(rlm.config, shared=shared), self._note)
        self._slots: dict[str, tuple[Slot, ...]] = {}
        self._cells = Trajectory()
        self.answers: dict[Slot, RecordedAnswer] = {}
        self.outcomes: dict[Slot, Answer] = {}

    @property
    def usage(self) -> UsageSummary:
        """The cost of its answers so far."""
        return self._engine.usage.summary()

    async def answer(self, question: Query | ToolCall) -> Sequence[Answer]:
        """The answers to a question, in order.

        Raises:
            LimitError: a limit is reached.
        """
        self._slots[question.id] = question.slots
        try:
            async with self._engine.ledger.deadline():
                return await self._engine.subcalls.answer(question)
        finally:
            del self._slots[question.id]

    def begin_cell(self, number: int) -> None:
        """A cell begins to ask."""
        self._cells = Trajectory()
        self._cells.add(CellStarted(iteration=1, cell=number, code=""))

    def shown(self) -> Output | None:
        """What the running cell has asked, folded; None: nothing."""
        cell = next((cell for cell in self._cells.cells if cell.calls or cell.tools), self._cells.setup)
        return calls_output(cell, lambda *_: "")

    def _note(self, event: Event) -> None:
        """Keep an answer, for the cell below which it is shown, and for a run that goes on from here."""
        if not isinstance(event, ChildEvent):  # there is no notebook of a child
            self._cells.add(event)
        if isinstance(event, SubcallAnswered) and event.error is None:
            slot = self._slots[event.query][event.index]
            self.answers[slot] = RecordedAnswer(event, (), ((event.model, event.usage),), 1)
        elif isinstance(event, ToolCalled):
            self.outcomes[event.call.slots[0]] = event.outcome
