"""Compare a replay with its record: differences by cell and call, and the way to the answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rlm_kernel.parsing import ParsedReply, parse
from rlm_kernel.trajectory.notebook.normaliser import as_text, unified
from rlm_kernel.trajectory.tree import Trajectory
from rlm_kernel.types import CellResult, Output

MAX_DIFF_LINES = 40
"""Lines of a diff that are shown; further ones are counted."""

Way = Literal["cell", "draft", "variable", "words", "none"]


@dataclass(frozen=True, slots=True)
class Divergence:
    """One difference.

    Attributes:
        kind: ``scene`` (before the first cell), ``edited``, ``removed``, ``call`` (a question that is not recorded),
            ``output``, ``kernel``, ``answer`` or ``record`` (the log is clipped from this cell on).
        cell: the number of the cell, 0 for an added one, or None.
        what: the difference, as text.
        diff: a unified diff from the record to the replay; may be empty.
    """

    kind: str
    cell: int | None
    what: str
    diff: str = ""

    def __str__(self) -> str:
        cell = "" if self.cell is None else f"Cell {self.cell} " if self.cell else "A cell that was added "
        return f"{cell}{self.what}" + (f":\n{self.diff}" if self.diff else ".")


def compare_outputs(recorded: Iterable[Output], now: Iterable[Output]) -> str:
    """A unified diff of two cells' outputs after the normaliser; empty when they are equal."""
    diff = unified(as_text(recorded), as_text(now))
    more = len(diff) - MAX_DIFF_LINES
    return "\n".join([*diff[:MAX_DIFF_LINES], *([f"… {more:,} more lines"] if more > 0 else [])])


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer of a run.

    Attributes:
        way: ``cell``: a cell called `FINAL` or set `answer`; ``draft``: the last reply was code or empty, so the
            content of `answer` was used; ``variable``: the model named a variable; ``words``: the model wrote the
            answer; ``none``: there is no answer.
        text: the answer.
        name: of the variable.
    """

    way: Way
    text: str | None = None
    name: str | None = None


def outcome_of(run: Trajectory) -> Outcome:
    """How a recorded run ended."""
    if run.completion is None or not run.turns:
        return Outcome("none")
    response, turn = run.completion.response, run.turns[-1]
    given = answer_given(cell.result for cell in turn.cells)
    if given is not None and turn.cells[-1].result is not None and answer_given([turn.cells[-1].result]) is not None:
        return Outcome("cell", given)
    last = parse(turn.reply.text) if turn.reply else ParsedReply()
    answer = last.answer
    if answer is None and (last.blocks or not last.prose) and response == draft_of(cell.result for cell in run.cells):
        return Outcome("draft", response)
    if answer is not None and answer.name is not None and (answer.must_be_variable or answer.text != response):
        return Outcome("variable", response, answer.name)
    return Outcome("words", response)


def draft_of(results: Iterable[CellResult | None]) -> str | None:
    """The content of `answer` after the last cell that set it."""
    drafts = [result.report.draft for result in results if result is not None and result.report.draft]
    return drafts[-1] if drafts else None


def answer_given(results: Iterable[CellResult | None]) -> str | None:
    """The last answer of a cell that did not raise, or None."""
    given = None
    for result in results:
        if result is not None and result.status == "ok":
            report = result.report
            given = report.answer if report.answer is not None else report.final if report.final is not None else given
    return given
