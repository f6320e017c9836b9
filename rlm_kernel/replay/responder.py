"""Answer the cells of a replay from the record.

A recorded question gets its recorded answer, its n-th occurrence the n-th one. A question that is not on record goes to
models where that is allowed; else it fails in the cell that asks, with the nearest question on record. A recorded tool
call is never executed again.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING

from rlm_kernel.engine.journal import Occurrences, keys
from rlm_kernel.engine.recorded import recorded_run_of
from rlm_kernel.trajectory.tree import Cell, Trajectory
from rlm_kernel.types import Answer, Query, Slot, ToolCall

if TYPE_CHECKING:
    from rlm_kernel.kernel.comm import Responder

SHOWN_CHARACTERS = 200
"""Of a prompt, in the words about what is missing."""
MAX_COMPARED = 200
"""Recorded questions that one without an answer is compared with: there may be thousands of either."""


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """A question that is not on record.

    Attributes:
        cell: the number of the cell that asked.
        asked: the question in short.
        nearest: the recorded question of that cell which is most like it, or None when none is left.
    """

    cell: int
    asked: str
    nearest: str | None

    @property
    def said(self) -> str:
        """What is wrong, in words that follow the name of the cell."""
        known = "nothing of the kind was asked" if self.nearest is None else f"the nearest on record is {self.nearest}"
        return f"asks what it did not ask in the recorded run: {self.asked}; {known}"


class RecordedResponder:
    """The `Responder` of a kernel in which recorded cells run again.

    Args:
        runs: the record; of a persistent kernel also those before; none: nothing was recorded.
        beyond: answers what is not on record; None: nothing does.
        advice: the end of the error for a question without an answer: what to do.

    Attributes:
        recalled: how many answers came from the record.
        unrecorded: the questions that are not on record.
    """

    def __init__(self, runs: Sequence[Trajectory], beyond: Responder | None = None, advice: str = "") -> None:
        self._cell = 0
        self.recalled = 0
        self.unrecorded: list[Unrecorded] = []
        # The setup is that of the first run.
        self._cells = {cell.number: cell for run in reversed(runs) for cell in (run.setup, *run.cells)}
        self._answers: dict[Slot, Answer] = {}
        for run in runs:
            recorded = recorded_run_of(run)
            for cell in (run.setup, *run.cells):
                self._answers |= recorded.recorded(cell.number)
        self._occurrences = Occurrences()
        self._beyond = beyond
        self._advice = advice
        self._recorded = bool(runs)

    def begin_cell(self, number: int) -> None:
        """Questions from now on are those of this cell; 0: the setup, or a cell that is not of the record."""
        self._cell = number

    async def answer(self, question: Query | ToolCall) -> Sequence[Answer]:
        """The recorded answers, in order; for a question that is not on record those of models, or errors."""
        slots = self._occurrences.slots(self._cell, keys(question))
        missing = [slot for slot in slots if slot not in self._answers]
        self.recalled += len(slots) - len(missing)
        answers = {slot: self._answers[slot] for slot in slots if slot in self._answers}
        if missing:
            answers |= await self._ask_beyond(_only(replace(question, slots=slots), missing))
        return [answers[slot] for slot in slots]

    async def _ask_beyond(self, question: Query | ToolCall) -> dict[Slot, Answer]:
        cell = question.slots[0].cell
        asked = (
            _call_text(question)
            if isinstance(question, ToolCall)
            else _question_text(question.kind, question.prompts[0])
        )
        missing = Unrecorded(cell, asked, _nearest(asked, self._cells.get(cell)))
        self.unrecorded.append(missing)
        if self._beyond is not None:
            return dict(zip(question.slots, await self._beyond.answer(question), strict=True))
        why = f"cell {cell} {missing.said}.{self._advice}" if self._recorded else self._advice.lstrip()
        return dict.fromkeys(question.slots, _refusal(question, why))


def _refusal(question: Query | ToolCall, why: str) -> Answer:
    """Raised in the cell, by a batch too: with a gap in it the cell would go on and show something else."""
    if isinstance(question, ToolCall):
        return Answer(error=json.dumps(["RuntimeError", why]))
    return Answer(error=why, refused=True)


def _only(question: Query | ToolCall, missing: Sequence[Slot]) -> Query | ToolCall:
    """The question without the prompts that have their answer."""
    if isinstance(question, ToolCall) or len(missing) == len(question.slots):
        return question
    prompts = dict(zip(question.slots, question.prompts, strict=True))
    return replace(question, prompts=tuple(prompts[slot] for slot in missing), slots=tuple(missing))


def _question_text(kind: str, prompt: str) -> str:
    return f"{kind}({_clip(prompt)!r})"


def _call_text(call: ToolCall) -> str:
    return f"{call.tool}({_clip(json.dumps([*call.args, call.kwargs])[1:-1])})"


def _clip(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def _nearest(asked: str, cell: Cell | None) -> str | None:
    """The recorded question of a cell that is most like this one."""
    if cell is None:
        return None
    prompts = (_question_text(call.started.kind, prompt) for call in cell.calls for prompt in call.started.prompts)
    known = islice(chain((_call_text(tool.call) for tool in cell.tools[:MAX_COMPARED]), prompts), 2 * MAX_COMPARED)
    likeness = difflib.SequenceMatcher(b=asked, autojunk=False)

    def ratio(other: str) -> float:
        likeness.set_seq1(other)
        return likeness.quick_ratio()

    return max(known, key=ratio, default=None)
