"""Replies that repeat themselves: the same words or code as a moment ago, with the same result."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any

from rlm_kernel.parsing import ParsedReply
from rlm_kernel.types import CellReport, CellResult

MAX_REPEATS = 3
"""After which a run ends early."""

TEMPERATURE = 0.8
"""Of the reply after the second repeat, if the client was given a lower one."""

_COMPARED_TURNS = 8
"""A model may alternate between a few replies."""
_COMPARED_CHARACTERS = 100_000
_ADDRESS = re.compile(r"\b0x[0-9a-f]+")


class Repetition:
    """The replies of a run, as far as they may repeat each other.

    Attributes:
        repeats: replies in a row that repeat one of those before them.
        total: all replies of the run that repeated one of those before them.
        same_message: turns in a row whose message would be the same, whatever the replies say.
    """

    def __init__(self) -> None:
        self.repeats = self.total = self.same_message = 0
        self._message = ""
        self._seen: deque[tuple[Hashable, Hashable]] = deque(maxlen=_COMPARED_TURNS)

    def take(self, parsed: ParsedReply, outcome: Hashable, message: str) -> None:
        """Take the reply of a turn, what came of its code (None: no code ran), and the message that would answer it."""
        turn = (said(parsed), outcome)
        repeats = turn in self._seen
        self.repeats = self.repeats + 1 if repeats else 0
        self.total += repeats
        self.same_message = self.same_message + 1 if outcome is None and message == self._message else 0
        self._message = message
        self._seen.append(turn)


def said(parsed: ParsedReply) -> Hashable:
    """What is compared of a reply: its code, else its words, without differences of case and white space."""
    if parsed.blocks:
        return hash(tuple(" ".join(block.split()) for block in parsed.blocks))
    return hash(" ".join((parsed.prose or str(parsed.answer)).casefold().split()))


def outcome_of(results: Sequence[CellResult], notes: Sequence[str], asked: Hashable) -> Hashable:
    """What is compared of a turn with code.

    Args:
        results: the cells.
        notes: for the model, about the cells.
        asked: what they asked models and tools.
    """
    shown = tuple(_shown(output) for result in results for output in result.outputs)
    ended = tuple(
        (result.status, result.error and (result.error.name, result.error.message), _left(result.report))
        for result in results
    )
    return hash((shown, ended, tuple(notes), asked))


def _left(report: CellReport) -> Hashable:
    """What a cell has left: a cell without outputs may take one step of a longer work."""
    values = tuple(_ADDRESS.sub("", value) for value in report.values.values())
    return report.draft, tuple(report.variables.items()), values


def _shown(output: Any) -> Hashable:
    text = output.get("text") or output.get("data", {}).get("text/plain") or ""
    return hash(_ADDRESS.sub("", str(text)[:_COMPARED_CHARACTERS]))
