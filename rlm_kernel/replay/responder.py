"""Answer the cells of a replay from the record.

A recorded question gets its recorded answer, its n-th occurrence the n-th one. A question that is not on record goes to
models where that is allowed; else it fails in the cell that asks, with the nearest question on record. A recorded tool
call is never executed again.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

from rlm_kernel.engine.recorded import recorded_run_of
from rlm_kernel.text import clip_end
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


class UnrecordedResponder:
    """The fallback of a replay: notes each question that is not on record, and asks models or refuses.

    Args:
        runs: the record; of a persistent kernel also those before; none: nothing was recorded.
        live: asks models; None: the question is refused.
        advice: the end of the refusal: what to do.

    Attributes:
        noted: the questions that are not on record.
    """

    def __init__(self, runs: Sequence[Trajectory], live: Responder | None = None, advice: str = "") -> None:
        self.noted: list[Unrecorded] = []
        # The setup is that of the first run.
        self._cells = {cell.number: cell for run in reversed(runs) for cell in (run.setup, *run.cells)}
        self._live = live
        self._advice = advice

    async def answer(self, question: Query | ToolCall) -> Sequence[Answer]:
        """The answers of models, or errors, in order."""
        cell = question.slots[0].cell
        asked = (
            _call_text(question)
            if isinstance(question, ToolCall)
            else _question_text(question.kind, question.prompts[0])
        )
        missing = Unrecorded(cell, asked, _nearest(asked, self._cells.get(cell)))
        self.noted.append(missing)
        if self._live is not None:
            return await self._live.answer(question)
        why = f"cell {cell} {missing.said}.{self._advice}" if self._cells else self._advice.lstrip()
        return [_refusal(question, why)] * len(question.slots)


def answers_of(runs: Sequence[Trajectory]) -> dict[Slot, Answer]:
    """The recorded answers of runs in one kernel."""
    return {slot: answer for run in runs for slot, answer in recorded_run_of(run).recorded().items()}


def _refusal(question: Query | ToolCall, why: str) -> Answer:
    """An error that the cell raises, also for a batch: with a gap in it the cell would show something else."""
    if isinstance(question, ToolCall):
        return Answer(error=json.dumps(["RuntimeError", why]))
    return Answer(error=why, refused=True)


def _question_text(kind: str, prompt: str) -> str:
    return f"{kind}({clip_end(prompt, SHOWN_CHARACTERS)!r})"


def _call_text(call: ToolCall) -> str:
    return f"{call.tool}({clip_end(json.dumps([*call.args, call.kwargs])[1:-1], SHOWN_CHARACTERS)})"


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
