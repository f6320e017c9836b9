"""Answer the calls of a replay that are not in the record, and collect the recorded answers.

A recorded call gets its recorded answer, its n-th occurrence the n-th answer. A call that is not in the record goes to
models in live mode; else it raises in its cell, with the most similar recorded call. A recorded tool call is never
executed again.
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
"""Of a prompt, in the message about a question that is not in the record."""
MAX_COMPARED = 200
"""Recorded questions that a question without an answer is compared with; there may be thousands of them."""


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """A question that is not in the record.

    Attributes:
        cell: the number of the cell that asked.
        question: its beginning.
        nearest: the most similar recorded question of that cell, or None if there is none.
    """

    cell: int
    question: str
    nearest: str | None

    @property
    def problem(self) -> str:
        """The problem, as text that follows the name of the cell."""
        known = "nothing of the kind was asked" if self.nearest is None else f"the nearest on record is {self.nearest}"
        return f"asks what it did not ask in the recorded run: {self.question}; {known}"


class UnrecordedResponder:
    """The fallback of a replay: notes each question that is not in the record, and asks models or refuses.

    Args:
        runs: the record, with the earlier runs of a persistent kernel; may be empty.
        live: asks models; None: the question is refused.
        advice: the end of the refusal: what to do.

    Attributes:
        noted: the questions that are not in the record.
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
        text = _text_of(question)
        missing = Unrecorded(cell, text, _nearest(text, self._cells.get(cell)))
        self.noted.append(missing)
        if self._live is not None:
            return await self._live.answer(question)
        why = f"cell {cell} {missing.problem}.{self._advice}" if self._cells else self._advice.lstrip()
        return [_refusal(question, why)] * len(question.slots)


def answers_of(runs: Sequence[Trajectory]) -> dict[Slot, Answer]:
    """The recorded answers of runs in one kernel."""
    return {slot: answer for run in runs for slot, answer in recorded_run_of(run).recorded().items()}


def _refusal(question: Query | ToolCall, why: str) -> Answer:
    """An error that the cell raises, also for a batch: with a failed slot the cell would show other outputs."""
    if isinstance(question, ToolCall):
        return Answer(error=json.dumps(["RuntimeError", why]))
    return Answer(error=why, refused=True)


def _text_of(question: Query | ToolCall) -> str:
    if isinstance(question, ToolCall):
        return _call_text(question)
    return _question_text(question.kind, question.prompts[0])


def _question_text(kind: str, prompt: str) -> str:
    return f"{kind}({clip_end(prompt, SHOWN_CHARACTERS)!r})"


def _call_text(call: ToolCall) -> str:
    return f"{call.tool}({clip_end(json.dumps([*call.args, call.kwargs])[1:-1], SHOWN_CHARACTERS)})"


def _nearest(question: str, cell: Cell | None) -> str | None:
    """The recorded question of a cell that is most similar to this one."""
    if cell is None:
        return None
    prompts = (_question_text(call.started.kind, prompt) for call in cell.calls for prompt in call.started.prompts)
    known = islice(chain((_call_text(tool.call) for tool in cell.tools[:MAX_COMPARED]), prompts), 2 * MAX_COMPARED)
    likeness = difflib.SequenceMatcher(b=question, autojunk=False)

    def ratio(other: str) -> float:
        likeness.set_seq1(other)
        return likeness.quick_ratio()

    return max(known, key=ratio, default=None)
