"""The progress bar of a batch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from rlm_kernel.trajectory.console.screen import standard_error

if TYPE_CHECKING:
    from rlm_kernel.batch.results import TaskResult


class BatchProgress:
    """Shows how many tasks are done, their rate, what failed, the cost and the time that is left, on stderr.

    Args:
        total: tasks.
    """

    def __init__(self, total: int) -> None:
        self._new = self._failed = 0
        self._cost: float | None = 0.0
        whole = partial(Column, no_wrap=True)  # on a narrow terminal only the bar is shorter
        self._progress = Progress(
            MofNCompleteColumn(table_column=whole()),
            BarColumn(),
            TextColumn("{task.fields[rate]}", table_column=whole()),
            TextColumn("{task.fields[outcome]}", table_column=whole()),
            TimeElapsedColumn(table_column=whole()),
            TextColumn("left", table_column=whole()),
            TimeRemainingColumn(table_column=whole()),
            console=standard_error().console,
        )
        self._bar = self._progress.add_task("", total=total, rate="", outcome="")

    def __enter__(self) -> Self:
        self._progress.start()
        self._progress.advance(self._bar, 0)  # the rate counts from now, not from the first result
        return self

    def __exit__(self, *_: object) -> None:
        """The last line has the rate of the whole batch."""
        seconds = self._progress.tasks[0].elapsed
        self._progress.update(self._bar, rate=_rate(self._new / seconds if seconds else None), outcome=self._outcome())
        self._progress.stop()

    def __rich__(self) -> Progress:
        """What it shows now."""
        return self._progress

    def add(self, result: TaskResult, *, is_known: bool = False) -> None:
        """Count a result. `is_known`: an earlier call has asked for it, so it does not count for the rate."""
        self._failed += result.error is not None
        self._cost = None if self._cost is None or result.cost is None else self._cost + result.cost
        if is_known:
            self._progress.tasks[0].completed += 1
            self._progress.update(self._bar, outcome=self._outcome())
        else:
            self._new += 1
            self._progress.update(self._bar, advance=1)
            rate = _rate(self._progress.tasks[0].speed)
            self._progress.update(self._bar, rate=rate, outcome=self._outcome())

    def _outcome(self) -> str:
        cost = "cost unknown" if self._cost is None else f"${self._cost:.2f}"
        return f"{self._failed} failed, {cost}" if self._failed else cost


def _rate(per_second: float | None) -> str:
    if not per_second:
        return ""
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{60 * per_second:.1f}/min"
