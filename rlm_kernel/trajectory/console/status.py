"""The moving part of the live display: what the run is doing at this moment.

`Status` is a frozen record; the display replaces it with each event and a refresh thread draws the newest one, so
neither waits for the other.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.spinner import Spinner
from rich.style import Style
from rich.table import Table
from rich.text import Text

from rlm_kernel.text import format_duration, format_tokens, plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from rlm_kernel.trajectory.events import SubcallAnswered, SubcallStarted

_TAIL_CHARACTERS = 4_000
_TAIL_LINES = 8
_SPINNER = Spinner("dots", style="cyan")


@dataclass(frozen=True, slots=True)
class Subcalls:
    """The sub-calls of one cell, added up.

    Attributes:
        asked: prompts in all calls so far.
        answered: how many have an answer or an error.
        failed: how many have an error.
        batched: whether one of the calls was a batch.
        kinds: the functions that were called, in order of appearance.
        models: the models that were asked.
        input_tokens: of all prompts.
        output_tokens: of all answers.
        samples: a few of the answers, those that failed before the others.
    """

    asked: int = 0
    answered: int = 0
    failed: int = 0
    batched: bool = False
    kinds: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    samples: tuple[SubcallAnswered, ...] = ()

    def with_call(self, event: SubcallStarted) -> Subcalls:
        """The sum with one more call in it."""
        return replace(
            self,
            asked=self.asked + event.count,
            batched=self.batched or event.count > 1,
            kinds=_with(self.kinds, event.kind),
            models=_with(self.models, event.model),
        )

    def with_answer(self, event: SubcallAnswered) -> Subcalls:
        """The sum with one more answer in it."""
        return replace(
            self,
            answered=self.answered + 1,
            failed=self.failed + (event.error is not None),
            input_tokens=self.input_tokens + event.usage.input_tokens,
            output_tokens=self.output_tokens + event.usage.output_tokens,
            samples=self._samples_with(event),
        )

    def title(self) -> Text:
        """Who is asked, and how many failed: `llm_query to qwen · 1 failed`."""
        failed = f" · {self.failed:,} failed" if self.failed else ""
        return Text.assemble(f"{', '.join(self.kinds)} to {plain(', '.join(self.models))}", (failed, "red"))

    def _samples_with(self, event: SubcallAnswered) -> tuple[SubcallAnswered, ...]:
        if len(self.samples) >= 3 and event.error is None:  # noqa: PLR2004 (three lines show the idea)
            return self.samples
        return tuple(sorted((*self.samples, event), key=lambda sample: sample.error is None)[:3])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        count = f"{self.answered:,}/{self.asked:,}"
        if not self.batched:
            yield Text.assemble(f"    ↳ {count} ", self.title(), no_wrap=True, overflow="ellipsis")
            return
        row = Table.grid(padding=(0, 1))
        row.add_column(width=3)
        row.add_column(width=1)
        row.add_column(width=min(30, max(4, options.max_width // 4)))
        row.add_column(no_wrap=True)
        row.add_column(no_wrap=True, overflow="ellipsis")
        row.add_row("", "↳", _bar(self.answered, self.asked), count, self.title())
        yield row


@dataclass(frozen=True, slots=True)
class Status:
    """What the run is doing.

    Attributes:
        doing: the activity in a few words, e.g. ``"cell 2 runs"``.
        since: when it began, by `time.monotonic`.
        started: when the run began, by `time.monotonic`.
        turn: which iteration of how many, e.g. ``"2/30"``; empty before the first.
        tail: the end of the text that is being written or printed.
        subcalls: those of the running cell.
        input_tokens: of the whole run so far.
        output_tokens: of the whole run so far.
    """

    doing: str
    since: float
    started: float
    turn: str = ""
    tail: str = ""
    subcalls: Subcalls | None = None
    input_tokens: int = 0
    output_tokens: int = 0

    def begin(self, doing: str, turn: str | None = None) -> Status:
        """The status at the beginning of another activity."""
        turn = self.turn if turn is None else turn
        return replace(self, doing=doing, since=time.monotonic(), turn=turn, tail="", subcalls=None)

    def with_subcalls(self, subcalls: Subcalls) -> Status:
        """The status with these sub-calls of the running cell."""
        return replace(self, subcalls=subcalls)

    def writing(self, text: str, doing: str | None = None) -> Status:
        """The status with more text at its end, of the same activity or the one that it shows to have begun."""
        return replace(self, doing=doing or self.doing, tail=(self.tail + text)[-_TAIL_CHARACTERS:])

    def spending(self, sent: int, received: int) -> Status:
        """The status with more tokens spent."""
        return replace(self, input_tokens=self.input_tokens + sent, output_tokens=self.output_tokens + received)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.tail:
            yield _LastLines(plain(self.tail), min(_TAIL_LINES, max(1, options.size.height - 6)))
        if self.subcalls is not None:
            yield self.subcalls
        yield self._line(time.monotonic())

    def _line(self, now: float) -> Table:
        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(width=1)
        row.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        row.add_column(no_wrap=True, justify="right", style="dim")
        turn = f"{self.turn} · " if self.turn else ""
        doing = Text.assemble((turn, "bold"), self.doing, (f" · {format_duration(now - self.since)}", "dim"))
        row.add_row(_SPINNER, doing, Text(self._totals(now)))
        return row

    def _totals(self, now: float) -> str:
        spent = self.input_tokens or self.output_tokens
        so_far = f"{format_tokens(self.input_tokens, self.output_tokens)} · " if spent else ""
        return f"{so_far}{format_duration(now - self.started)}"


class _LastLines:
    """The last lines of a text as it is folded for the screen, so that the newest words are in view."""

    def __init__(self, text: str, count: int) -> None:
        self._text = text
        self._count = count

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = Padding(Text(self._text.rstrip(), style="dim"), (0, 0, 0, 6))
        for line in console.render_lines(text, options.update(height=None), pad=False)[-self._count :]:
            yield from line
            yield Segment.line()


def _bar(done: int, total: int) -> ProgressBar:
    return ProgressBar(
        total=max(1, total),
        completed=done,
        complete_style=Style(color="cyan"),
        finished_style=Style(color="green"),
    )


def _with(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names if name in names else (*names, name)
