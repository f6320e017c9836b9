"""Replies that repeat themselves: the same words or code as a moment ago, with the same result."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any

from rlm_kernel.parsing import ParsedReply
from rlm_kernel.types import CellResult

MAX_REPEATS = 3
"""After which a run ends early."""

TEMPERATURE = 0.8
"""Of the reply after the second repeat, if the client was given a lower one."""

_COMPARED_TURNS = 4
"""A model may alternate between a few replies."""
_COMPARED_CHARACTERS = 100_000
_ADDRESS = re.compile(r"\b0x[0-9a-f]+")


class Repetition:
    """The replies of a run, as far as they may repeat each other.

    Attributes:
        repeats: replies in a row that repeat one of those before them.
        same_message: turns in a row whose message would be the same, whatever the replies say.
    """

    def __init__(self) -> None:
        self.repeats = self.same_message = 0
        self._seen: deque[tuple[Hashable, Hashable]] = deque(maxlen=_COMPARED_TURNS)

    def take(self, parsed: ParsedReply, outcome: Hashable) -> None:
        """Take the reply of a turn, and what came of it."""
        turn = (said(parsed), outcome)
        self.repeats = self.repeats + 1 if turn in self._seen else 0
        is_message = isinstance(outcome, str) and bool(self._seen) and self._seen[-1][1] == outcome
        self.same_message = self.same_message + 1 if is_message else 0
        self._seen.append(turn)


def said(parsed: ParsedReply) -> Hashable:
    """What is compared of a reply: its code, else its words, without differences of case and white space."""
    if parsed.blocks:
        return hash(tuple(" ".join(block.split()) for block in parsed.blocks))
    return hash(" ".join((parsed.prose or str(parsed.answer)).casefold().split()))


def outcome_of(results: Sequence[CellResult], notes: Sequence[str], *, has_asked: bool) -> Hashable:
    """What is compared of a turn with code.

    A cell that shows nothing but has asked a model may be a step of a longer work: its outcome is like no other.

    Args:
        results: the cells.
        notes: for the model, about the cells.
        has_asked: whether they asked a model or called a tool.
    """
    shown = tuple(_shown(output) for result in results for output in result.outputs)
    if has_asked and not shown:
        return object()
    ended = tuple(
        (result.status, result.error and (result.error.name, result.error.message), result.report.draft)
        for result in results
    )
    return hash((shown, ended, tuple(notes)))


def _shown(output: Any) -> Hashable:
    text = output.get("text") or output.get("data", {}).get("text/plain") or ""
    return hash(_ADDRESS.sub("", str(text)[:_COMPARED_CHARACTERS]))
