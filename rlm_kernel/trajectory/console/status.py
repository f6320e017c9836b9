"""The moving part of the live display: the current activity of the run, drawn with Rich."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from rlm_kernel.text import format_duration, format_tokens, plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from rlm_kernel.trajectory.progress import RunProgress, Subcalls

_TAIL_LINES = 8
_SPINNER = Spinner("dots", style="cyan")


class Status:
    """Draws the progress of a run at the time of a refresh.

    The refresh thread reads while the run writes, so one attribute may be newer than another by one event.
    """

    def __init__(self, progress: RunProgress) -> None:
        self._progress = progress

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        tail, subcalls = self._progress.tail, self._progress.subcalls
        if tail:
            yield _LastLines(plain(tail), min(_TAIL_LINES, max(1, options.size.height - 6)))
        if subcalls is not None:
            yield _subcalls(subcalls, options.max_width)
        yield self._line(time.monotonic())

    def _line(self, now: float) -> Table:
        progress = self._progress
        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(width=1)
        row.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        row.add_column(no_wrap=True, justify="right", style="dim")
        turn = f"{progress.turn} · " if progress.turn else ""
        text = Text.assemble((turn, "bold"), progress.activity, (f" · {format_duration(now - progress.since)}", "dim"))
        row.add_row(_SPINNER, text, Text(self._totals(now)))
        return row

    def _totals(self, now: float) -> str:
        used = self._progress.usage
        sent, received = used.total_input_tokens, used.total_output_tokens
        so_far = f"{format_tokens(sent, received)} · " if sent or received else ""
        return f"{so_far}{format_duration(now - self._progress.began)}"


def subcalls_title(calls: Subcalls) -> Text:
    """The functions, the models, and how many calls failed: `llm_query to qwen · 1 failed`."""
    failed = f" · {calls.failed:,} failed" if calls.failed else ""
    return Text.assemble(calls.title, (failed, "red"))


def _subcalls(calls: Subcalls, width: int) -> RenderableType:
    count, title = f"{calls.answered:,}/{calls.prompts:,}", subcalls_title(calls)
    left = "" if calls.seconds_left is None else f"{format_duration(calls.seconds_left)} left"
    if not calls.batched:
        return Text.assemble(f"    ↳ {count} ", title, no_wrap=True, overflow="ellipsis")
    row = Table.grid(padding=(0, 1))
    row.add_column(width=3)
    row.add_column(width=1)
    row.add_column(width=min(30, max(4, width // 4)))
    row.add_column(no_wrap=True)
    row.add_column(no_wrap=True, style="dim")
    row.add_column(no_wrap=True, overflow="ellipsis")
    total = max(1, calls.prompts)
    bar = ProgressBar(total=total, completed=calls.answered, complete_style="cyan", finished_style="green")
    row.add_row("", "↳", bar, count, left, title)
    return row


class _LastLines:
    """The last lines of a text, folded for the screen, so that the newest text is visible."""

    def __init__(self, text: str, count: int) -> None:
        self._text = text
        self._count = count

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = Padding(Text(self._text.rstrip(), style="dim"), (0, 0, 0, 6))
        for line in console.render_lines(text, options.update(height=None), pad=False)[-self._count :]:
            yield from line
            yield Segment.line()
