"""What a rebuild of a lost kernel needs: every step in order, and the answers that its cells were given.

A rebuild costs no model call: a recorded question gets its recorded answer, its n-th occurrence the n-th one, and a
question that is not on record fails. A tool is never called a second time.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlm_kernel.engine.kernel_steps import CellRun, VariableSet
from rlm_kernel.types import Answer, CellResult, Query, Slot, ToolCall


def keys(question: Query | ToolCall) -> tuple[str, ...]:
    """What identifies each prompt of a query, or the call of a tool: SHA-256 of everything that its answer depends on.

    It stands in the log, and the setup cell of a notebook computes the same.
    """
    if isinstance(question, ToolCall):
        return (_key("tool", question.tool, question.args, question.kwargs),)
    seen = [image.sha256 for image in question.images]
    return tuple(_key(question.kind, question.model, prompt, question.schema, seen) for prompt in question.prompts)


def _key(*what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode("ascii")).hexdigest()


class Occurrences:
    """Counts what the running cell asks: asked again, the same thing is another slot. No cell runs twice."""

    def __init__(self) -> None:
        self._cell: int | None = None
        self._asked: Counter[str] = Counter()

    def forget(self, cell: int) -> None:
        """Count anew what a cell asks."""
        if cell == self._cell:
            self._asked.clear()

    def slots(self, cell: int, asked: Sequence[str]) -> tuple[Slot, ...]:
        """The slots of the keys of a question that a cell asks now."""
        if cell != self._cell:
            self._cell = cell
            self._asked.clear()
        return tuple(self._slot(cell, key) for key in asked)

    def _slot(self, cell: int, key: str) -> Slot:
        occurrence = self._asked[key]
        self._asked[key] += 1
        return Slot(cell, key, occurrence)


MAX_ANSWERS = 100_000
MAX_CHARACTERS = 64_000_000


class Journal:
    """The steps of a REPL and the answers of its cells, in memory.

    Attributes:
        is_full: whether an answer was not kept, because there were `MAX_ANSWERS`, or `MAX_CHARACTERS` in them.
    """

    def __init__(self) -> None:
        self.is_full = False
        self._characters = 0
        self.steps: list[VariableSet | CellRun] = []
        self.answers: dict[Slot, Answer] = {}
        self._occurrences = Occurrences()

    def forget(self, step: CellRun) -> None:
        """Leave a cell out of the next rebuild: it ends the kernel, or leaves it unable to run another."""
        self.steps.remove(step)

    def begin_again(self, cell: int) -> None:
        """What a cell asks from now on, it asks for the first time."""
        self._occurrences.forget(cell)

    def forget_answers(self, cell: int) -> None:
        """Leave out what a cell was answered."""
        self.answers = {slot: answer for slot, answer in self.answers.items() if slot.cell != cell}

    def slots(self, cell: int, question: Query | ToolCall) -> tuple[Slot, ...]:
        """Where the answers of a question that is asked now will stand."""
        return self._occurrences.slots(cell, keys(question))

    def recorded_answers(self, slots: Sequence[Slot]) -> list[Answer] | None:
        """The answers of a question, if all of them are on record."""
        return [self.answers[slot] for slot in slots] if all(slot in self.answers for slot in slots) else None

    def record(self, slots: Sequence[Slot], answers: Sequence[Answer]) -> None:
        """Keep the answers of a question, as long as there is room."""
        self._characters += sum(len(answer.text) + len(answer.error or "") for answer in answers)
        if len(self.answers) + len(slots) > MAX_ANSWERS or self._characters > MAX_CHARACTERS:
            self.is_full = True
        else:
            self.answers.update(zip(slots, answers, strict=True))


class JournalResponder:
    """A `Responder` for one cell that runs again: answers from the record, and from nowhere else.

    Args:
        answers: the record.
        cell: the number of the cell.
    """

    def __init__(self, answers: Mapping[Slot, Answer], cell: int) -> None:
        self._answers = answers
        self._cell = cell
        self._occurrences = Occurrences()

    async def answer(self, question: Query | ToolCall) -> Sequence[Answer]:
        """The recorded answers; an error for each prompt that has none."""
        missing = Answer(error=_not_recorded(question))
        return [self._answers.get(slot, missing) for slot in self._occurrences.slots(self._cell, keys(question))]


def _not_recorded(question: Query | ToolCall) -> str:
    why = "the kernel is being rebuilt, and this was not asked before"
    return json.dumps(["RuntimeError", why]) if isinstance(question, ToolCall) else why


@dataclass(frozen=True, slots=True)
class Recovery:
    """How a lost kernel came back.

    Attributes:
        reason: why it was lost, in words for the model.
        kept: variables that are there again.
        lost: variables that are not.
    """

    reason: str
    kept: tuple[str, ...]
    lost: tuple[str, ...]


def reason_of(ended: CellResult | None) -> str:
    """Why a kernel was lost, in words for the model; None: no cell ran."""
    if ended is None:
        return "it died between two cells"
    return "the cell did not end in time" if ended.status == "timeout" else "it died while it ran the cell"
