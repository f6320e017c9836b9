"""How a recorded run got its answer, so that whoever repeats its cells can say whether they still lead to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rlm_kernel.parsing import ParsedReply, parse
from rlm_kernel.records import CellResult
from rlm_kernel.trajectory.tree import Trajectory

Way = Literal["cell", "draft", "variable", "words", "none"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer of a run.

    Attributes:
        way: ``cell``: a cell called `FINAL` or filled `answer`; ``draft``: the last word was code or empty, so what
            stood in `answer` was taken; ``variable``: the model named a variable; ``words``: it wrote the answer
            itself; ``none``: there is no answer.
        text: what the cell or the variable held.
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
    given = given_by(cell.result for cell in turn.cells)
    if given is not None and turn.cells[-1].result is not None and given_by([turn.cells[-1].result]) is not None:
        return Outcome("cell", given)
    last = parse(turn.reply.text) if turn.reply else ParsedReply()
    said = last.answer
    is_none = said is None and (last.blocks or not last.prose)
    if is_none and response == draft_of(cell.result for cell in run.cells):
        return Outcome("draft", response)
    if said is not None and said.name is not None and (said.must_be_variable or said.text != response):
        return Outcome("variable", response, said.name)
    return Outcome("words", response)


def draft_of(results: Iterable[CellResult | None]) -> str | None:
    """What the last cell that left something in `answer` left there."""
    drafts = [result.report.draft for result in results if result is not None and result.report.draft]
    return drafts[-1] if drafts else None


def given_by(results: Iterable[CellResult | None]) -> str | None:
    """The last answer that a cell gave, if one did and did not raise afterwards."""
    given = None
    for result in results:
        if result is not None and result.status == "ok":
            report = result.report
            given = report.answer if report.answer is not None else report.final if report.final is not None else given
    return given
