"""Where a replay is not as the run was, in words that name the cell and the call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rlm_kernel.records import Output
from rlm_kernel.trajectory.notebook.normaliser import as_text, unified

MOST_LINES = 40
"""Of a difference; what is more is counted."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """One difference.

    Attributes:
        kind: ``scene`` (before the first cell), ``edited``, ``removed``, ``call`` (a question that is not on record),
            ``output``, ``kernel``, ``answer`` or ``record`` (the log is clipped from this cell on).
        cell: the number of the cell, 0 for one that was added, or None.
        what: what is different.
        diff: a unified diff from the record to the replay, or nothing.
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
    more = len(diff) - MOST_LINES
    return "\n".join([*diff[:MOST_LINES], *([f"… {more:,} more lines"] if more > 0 else [])])
