"""The live display of a run in a terminal, a reader of the stream of events.

It draws on stderr. On a terminal, a status moves below the finished blocks: what the model is writing, the progress of
the sub-calls, tokens and time. Without a terminal (a pipe, CI), and for every run after the first, the same blocks are
drawn when they are finished, without the moving part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rlm_kernel.parsing import FencedBlock, split_blocks
from rlm_kernel.text import format_duration
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.console import render
from rlm_kernel.trajectory.console.screen import Screen, standard_error
from rlm_kernel.trajectory.console.status import Status
from rlm_kernel.trajectory.progress import RunProgress

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType

_MAX_BLOCKS = 20
"""Code blocks of a reply that are drawn one by one: each takes a millisecond, and a reply may hold a million."""


class ConsoleView:
    """Draws the events of one run: call it with each, in order.

    Use it as a context manager, so that the status is removed however the run ends. A call stores or prints and never
    waits for the model or the kernel; views of different runs may be called from different threads.

    Args:
        screen: where to draw; by default stderr, shared by all views of the process.
    """

    def __init__(self, screen: Screen | None = None) -> None:
        self._screen = screen or standard_error()
        self._name = ""
        self._moves = False
        self._progress = RunProgress()
        self._status = Status(self._progress)
        self._pending: list[str | FencedBlock] = []

    def __enter__(self) -> Self:
        number = self._screen.join()
        self._name = f"run {number} · " if number > 1 else ""
        self._moves = self._screen.claim()
        if self._moves:
            self._screen.move(self._status)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_moving()
        self._screen.leave()

    def __call__(self, event: events.Event) -> None:  # noqa: C901 (one case for each kind)
        """Draw an event."""
        subcalls = self._progress.subcalls
        self._progress(event)
        match event:
            case events.RunStarted():
                self._print(render.header(event))
            case events.KernelReady():
                self._draw_kernel(event)
            case events.IterationStarted():
                self._draw_pending()
            case events.ModelReplied():
                self._draw_reply(event)
            case events.CellStarted():
                self._draw_before(event.code)
                self._print("", render.code(event.code, event.cell))
            case events.CellFinished():
                calls = [] if subcalls is None else [render.subcalls(subcalls, event.time - subcalls.began)]
                self._print(*calls, render.output(event.result))
            case events.Notice():
                self._print(render.notice(event.message))
            case events.MessageStarted():
                self._print(render.message(event.text))
            case events.RunFinished():
                self._draw_answer(event)
            case events.RunFailed():
                self._draw_failure(event)

    def finish(self) -> None:
        """Draw what is left of the last reply; for a run that is drawn without its end."""
        self._draw_pending()

    def _draw_kernel(self, event: events.KernelReady) -> None:
        # The kernel starts while the model writes its first reply; after that reply the message is of no use.
        if not self._progress.usage.model_usage_summaries:
            self._print(render.quiet(f"The kernel is ready, {format_duration(event.seconds)}."))

    def _draw_reply(self, event: events.ModelReplied) -> None:
        self._print(render.turn(f"{self._name}{event.iteration}", event))
        self._pending = list(split_blocks(event.reply.text, _MAX_BLOCKS))
        if len(self._pending) == 1:
            self._draw_pending()

    def _draw_answer(self, event: events.RunFinished) -> None:
        self._draw_pending()
        self._stop_moving()
        done, count = event.completion, self._progress.iteration
        turns = "1 iteration" if count == 1 else f"{count} iterations"
        facts = f"{self._name}{turns} · {format_duration(done.execution_time)}"
        self._print(render.answer(done.response, facts), render.usage(done.usage_summary))

    def _draw_failure(self, event: events.RunFailed) -> None:
        self._draw_pending()
        self._stop_moving()
        self._print(render.failure(event.error, event.time), render.usage(self._progress.usage))

    def _draw_before(self, code: str) -> None:
        """Draw the parts of the reply before this code block; nothing if the block is not in the reply."""
        wanted = code.strip()
        for place, part in enumerate(self._pending):
            if isinstance(part, FencedBlock) and part.code.strip() == wanted:
                self._draw_parts(self._pending[:place])
                self._pending = self._pending[place + 1 :]
                return

    def _draw_pending(self) -> None:
        self._draw_parts(self._pending)
        self._pending = []

    def _draw_parts(self, parts: list[str | FencedBlock]) -> None:
        for part in parts:
            if (part if isinstance(part, str) else part.code).strip():
                self._print("", render.words(part) if isinstance(part, str) else render.code(part.code, None))

    def _print(self, *blocks: RenderableType) -> None:
        self._screen.print(*blocks)

    def _stop_moving(self) -> None:
        if self._moves:
            self._moves = False
            self._screen.release()
