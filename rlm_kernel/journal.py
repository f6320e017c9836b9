"""What it takes to make the state of a lost kernel again: every step in order, and the answers its cells were given.

A rebuild costs no model call: a recorded question gets its recorded answer, the n-th time it is asked the n-th one, and
a question that is not on record fails. A tool is never called a second time.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlm_kernel.records import Answer, Query, ToolCall


@dataclass(frozen=True, slots=True)
class Given:
    """The host gave a value to a name."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class Ran:
    """A cell ran to its end, well or not: it may have left variables either way."""

    cell: int
    code: str


class Journal:
    """The steps of a REPL and the answers of its cells, in memory."""

    def __init__(self) -> None:
        self.steps: list[Given | Ran] = []
        self._answers: defaultdict[tuple[int, str], list[Sequence[Answer]]] = defaultdict(list)

    def record(self, cell: int, question: Query | ToolCall, answers: Sequence[Answer]) -> None:
        """Keep the answers of a question."""
        self._answers[cell, _key(question)].append(answers)

    def recorded(self, cell: int, question: Query | ToolCall, occurrence: int) -> Sequence[Answer] | None:
        """What a cell got when it asked this for the `occurrence`-th time, from 0; None when it never did."""
        answers = self._answers.get((cell, _key(question)), [])
        return answers[occurrence] if occurrence < len(answers) else None


class Replay:
    """A `Responder` for one cell of a rebuild: answers from the journal, and from nowhere else."""

    def __init__(self, journal: Journal, cell: int) -> None:
        self._journal = journal
        self._cell = cell
        self._asked: Counter[str] = Counter()

    async def answer(self, question: Query | ToolCall) -> Sequence[Answer]:
        """The recorded answers; an error for each prompt when there are none."""
        key = _key(question)
        answers = self._journal.recorded(self._cell, question, self._asked[key])
        self._asked[key] += 1
        if answers is not None:
            return answers
        count = len(question.prompts) if isinstance(question, Query) else 1
        return [Answer(error="the kernel is being rebuilt, and this was not asked before")] * count


def _key(question: Query | ToolCall) -> str:
    if isinstance(question, Query):
        what: Any = [question.kind, question.model, question.batch, question.prompts]
    else:
        what = ["tool", question.tool, question.args, question.kwargs]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode("ascii")).hexdigest()
