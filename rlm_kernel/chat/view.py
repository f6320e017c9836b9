"""A turn in a terminal: the answer as it is written, and the run as one line or as cells."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from rlm_kernel.chat.conversation import Turn
from rlm_kernel.chat.markdown import MarkdownBlocks, Trimmed, block
from rlm_kernel.text import format_duration, one_line, plain
from rlm_kernel.trajectory.console.live_display import ConsoleView
from rlm_kernel.trajectory.console.screen import Screen
from rlm_kernel.trajectory.events import CellFinished, Event, Notice
from rlm_kernel.trajectory.progress import RunProgress
from rlm_kernel.types import UsageSummary

_MARGIN = 2
_REFRESHES_PER_SECOND = 8
_LEFT_FREE = 3
"""Lines of the screen that the block in progress leaves free."""


def draw_run(console: Console, turn: Turn) -> None:
    """Draw the cells, outputs and sub-calls of a turn, without the reply that is its answer."""
    cells = ConsoleView(Screen(console, live=False))
    drawn = (place for place, event in enumerate(turn.run, 1) if isinstance(event, CellFinished | Notice))
    end = max(drawn, default=0) if turn.answer and turn.cells else len(turn.run)
    for event in turn.run[:end]:
        cells(event)
    cells.finish()
    console.print(Text(f"▾ {turn.facts}", style="dim"))


class TurnView:
    """Draws a turn on a terminal. Use it as a context manager; afterwards the line about the run is gone.

    Args:
        console: the terminal.
        turn: is drawn.
        unfolded: whether the run is shown as cells from its beginning.
    """

    def __init__(self, console: Console, turn: Turn, *, unfolded: bool) -> None:
        self._console = console
        self._turn = turn
        self._progress = RunProgress()
        self._blocks = MarkdownBlocks()
        self._begun = False
        self._cells: ConsoleView | None = None
        self._note = ""
        self._question = ""
        self._live = Live(
            console=console,
            get_renderable=self._moving,
            refresh_per_second=_REFRESHES_PER_SECOND,
            transient=True,
            redirect_stdout=False,  # warnings go to stderr, and must not be drawn over
            vertical_overflow="crop",
        )
        if unfolded:
            self.toggle()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draw(self._blocks.finish())
        if self._cells is not None:
            self._cells.finish()
        self._live.stop()

    def take(self, event: Event, words: str) -> None:
        """Take an event of the run, and the words that it adds to the answer."""
        before = len(self._turn.run)
        self._progress(event)
        self._turn.take(event)
        if self._cells is not None and len(self._turn.run) > before:
            self._cells(event)
        if words:
            self._draw(self._blocks.feed(words))

    def toggle(self) -> None:
        """Show the run as cells from its beginning, or as one line from now on."""
        if self._cells is not None:
            self._cells.finish()
            self._cells = None
            return
        self._cells = ConsoleView(Screen(self._console, live=False))
        for event in self._turn.run:
            self._cells(event)

    def note(self, text: str) -> None:
        """Say something in the line about the run."""
        self._note = text

    def say(self, text: str) -> None:
        """Draw words that no event brought."""
        self._draw(self._blocks.feed(text))

    @property
    def usage(self) -> UsageSummary:
        """Of the run so far."""
        return self._progress.usage

    def ask(self, question: str) -> None:
        """Show a question in the place of the line about the run; empty: show that again."""
        self._question = question

    def _draw(self, blocks: list[str]) -> None:
        for text in blocks:
            if self._begun:
                self._console.print()
            self._begun = True
            self._console.print(Trimmed(block(text), _MARGIN))

    def _moving(self) -> RenderableType:
        return _Moving(self._blocks.tail if self._blocks.tail.strip() else "", self._begun, self._line())

    def _line(self) -> Text:
        now = time.monotonic()
        if self._question:
            return Text(self._question, style="bold yellow")
        progress, calls = self._progress, self._progress.subcalls
        parts = [f"{progress.turn} · {progress.activity}" if progress.turn else progress.activity]
        if self._note:
            parts = [self._note]
        if calls is not None:
            parts.append(f"{calls.answered:,}/{calls.prompts:,} {calls.title}")
        used = progress.usage
        if used.total_output_tokens:
            parts.append(f"{used.total_input_tokens + used.total_output_tokens:,} tokens")
        parts.insert(1, format_duration(now - progress.began))
        frames = _SPINNER.frames
        frame = frames[int(1000 * now / _SPINNER.interval) % len(frames)]
        return Text.assemble((frame, "cyan"), " ", (" · ".join(map(one_line, parts)), "dim"))


_SPINNER = Spinner("dots")


class _Moving:
    """The end of the block that is being written, and the line about the run. No line is wider than the screen."""

    def __init__(self, text: str, begun: bool, line: Text) -> None:
        self._text = text
        self._begun = begun
        self._line = line

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max(1, options.size.height - _LEFT_FREE)
        if self._text:
            if self._begun:
                yield ""
            yield Trimmed(block(self._text), _MARGIN, room)
        line = self._line.copy()
        line.no_wrap, line.overflow = True, "ellipsis"
        line.truncate(options.max_width - 1, overflow="ellipsis")
        yield line


def over(turn: Turn) -> list[RenderableType]:
    """A turn of an earlier session: its answer, or why there is none."""
    answer: list[RenderableType] = [Trimmed(block(turn.answer), _MARGIN)] * bool(turn.answer)
    return [*answer, *_error(turn)]


def after(turn: Turn, *, key: str) -> list[RenderableType]:
    """What stays below an answer: the error, if there is one, and the run in a line. `key`: shows the run."""
    if not turn.run:
        return _error(turn)
    how = f" · {key}" if turn.cells else ""
    return [*_error(turn), Text(f"▸ {turn.facts}{how}", style="dim")]


def _error(turn: Turn) -> list[RenderableType]:
    return [Text(f"✗ {plain(turn.error)}", style="red")] * bool(turn.error)
