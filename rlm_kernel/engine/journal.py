"""The journal of a REPL: its steps and the answers of its cells, from which a lost kernel is rebuilt.

A rebuild makes no model calls: a question gets its recorded answer, and one without a recorded answer fails. A tool is
never called a second time.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlm_kernel.engine.kernel_steps import CellRun, VariableSet
from rlm_kernel.trajectory.tree import SETUP
from rlm_kernel.types import Answer, CellResult, Query, Slot, ToolCall

if TYPE_CHECKING:
    from rlm_kernel.kernel.comm import Responder


def keys(question: Query | ToolCall) -> tuple[str, ...]:
    """The key of each prompt of a query, or of a call of a tool: SHA-256 of everything that its answer depends on.

    It is stored in the log, and the replay code of a notebook computes the same key.
    """
    if isinstance(question, ToolCall):
        return (_key("tool", question.tool, question.args, question.kwargs),)
    seen = [image.sha256 for image in question.images]
    return tuple(_key(question.kind, question.model, prompt, question.schema, seen) for prompt in question.prompts)


_encode = json.JSONEncoder(sort_keys=True).encode
"""`json.dumps` builds an encoder for each prompt of a batch."""


def _key(*what: Any) -> str:
    return hashlib.sha256(_encode(what).encode("ascii")).hexdigest()


class Occurrences:
    """Counts the questions of the running cell: a repeated question has another slot. No cell runs twice."""

    def __init__(self) -> None:
        self._cell: int | None = None
        self._asked: Counter[str] = Counter()

    def forget(self, cell: int) -> None:
        """Count the questions of a cell from zero."""
        if cell == self._cell:
            self._asked.clear()

    def slots(self, cell: int, question_keys: Sequence[str]) -> tuple[Slot, ...]:
        """The slots of the keys of a question that a cell asks now."""
        if cell != self._cell:
            self._cell = cell
            self._asked.clear()
        return tuple(self._slot(cell, key) for key in question_keys)

    def _slot(self, cell: int, key: str) -> Slot:
        occurrence = self._asked[key]
        self._asked[key] += 1
        return Slot(cell, key, occurrence)


MAX_ANSWERS = 100_000
MAX_CHARACTERS = 64_000_000


class Journal:
    """The steps of a REPL and the answers of its cells, in memory.

    Attributes:
        is_full: whether an answer was not stored, because `MAX_ANSWERS` or `MAX_CHARACTERS` was reached.
    """

    def __init__(self) -> None:
        self.is_full = False
        self._characters = 0
        self.steps: list[VariableSet | CellRun] = []
        self.answers: dict[Slot, Answer] = {}
        self._occurrences = Occurrences()

    def forget(self, step: CellRun) -> None:
        """Leave a cell out of the next rebuild: it ends the kernel, or leaves it unusable."""
        self.steps.remove(step)

    def forget_last_cell(self) -> None:
        """Leave the last cell out of the next rebuild."""
        cells = [step for step in self.steps if isinstance(step, CellRun)]
        if cells:
            self.forget(cells[-1])

    def begin_again(self, cell: int) -> None:
        """Count the questions of a cell from zero."""
        self._occurrences.forget(cell)

    def forget_answers(self, cell: int) -> None:
        """Remove the answers of a cell."""
        self.answers = {slot: answer for slot, answer in self.answers.items() if slot.cell != cell}

    def slots(self, cell: int, question: Query | ToolCall) -> tuple[Slot, ...]:
        """The slots for the answers of a new question."""
        return self._occurrences.slots(cell, keys(question))

    def recorded_answers(self, slots: Sequence[Slot]) -> list[Answer] | None:
        """The answers of a question, if all of them are recorded."""
        return [self.answers[slot] for slot in slots] if all(slot in self.answers for slot in slots) else None

    def record(self, slots: Sequence[Slot], answers: Sequence[Answer]) -> None:
        """Store the answers of a question, as long as there is room."""
        self._characters += sum(len(answer.text) + len(answer.error or "") for answer in answers)
        if len(self.answers) + len(slots) > MAX_ANSWERS or self._characters > MAX_CHARACTERS:
            self.is_full = True
        else:
            self.answers.update(zip(slots, answers, strict=True))


class RecordedResponder:
    """A `Responder` that answers from a record: a repeated question gets the next recorded answer.

    Args:
        answers: the record.
        fallback: answers questions without a recorded answer; they have their slots.
        cell: the number of the cell that asks first.

    Attributes:
        recalled: how many answers came from the record.
    """

    def __init__(self, answers: Mapping[Slot, Answer], fallback: Responder, cell: int = SETUP) -> None:
        self.recalled = 0
        self._answers = answers
        self._fallback = fallback
        self._cell = cell
        self._occurrences = Occurrences()

    def begin_cell(self, number: int, *, again: bool = True) -> None:
        """Set the cell of the questions from now on; 0: the setup, or a cell that is not in the record.

        `again`: whether a cell that runs a second time gets the same answers again.
        """
        self._cell = number
        if again:
            self._occurrences.forget(number)

    async def answer(self, question: Query | ToolCall) -> Sequence[Answer]:
        """The recorded answers, in order, and those of the fallback."""
        slots = self._occurrences.slots(self._cell, keys(question))
        answers = {slot: self._answers[slot] for slot in slots if slot in self._answers}
        self.recalled += len(answers)
        if missing := tuple(slot for slot in slots if slot not in answers):
            found = await self._fallback.answer(_only(replace(question, slots=slots), missing))
            answers |= zip(missing, found, strict=True)
        return [answers[slot] for slot in slots]


def _only(question: Query | ToolCall, slots: tuple[Slot, ...]) -> Query | ToolCall:
    """The question without the prompts of other slots."""
    if isinstance(question, ToolCall) or len(slots) == len(question.slots):
        return question
    prompts = dict(zip(question.slots, question.prompts, strict=True))
    return replace(question, prompts=tuple(prompts[slot] for slot in slots), slots=slots)


class RebuildFallback:
    """Refuses new questions of a cell during a rebuild."""

    async def answer(self, question: Query | ToolCall) -> Sequence[Answer]:
        """An error for each prompt."""
        why = "the kernel is being rebuilt, and this was not asked before"
        error = json.dumps(["RuntimeError", why]) if isinstance(question, ToolCall) else why
        return [Answer(error=error)] * len(question.slots)


@dataclass(frozen=True, slots=True)
class Recovery:
    """How a lost kernel was rebuilt.

    Attributes:
        reason: why it was lost, as a text for the model.
        kept: the variables that exist again.
        lost: the variables that do not.
    """

    reason: str
    kept: tuple[str, ...]
    lost: tuple[str, ...]


def reason_of(ended: CellResult | None) -> str:
    """Why a kernel was lost, as a text for the model; None: no cell ran."""
    if ended is None:
        return "it died between two cells"
    return "the cell did not end in time" if ended.status == "timeout" else "it died while it ran the cell"
