"""The live display of a run in a terminal: one more reader of the stream of events.

It draws on stderr. On a terminal, a status moves below the finished blocks: what the model is writing, the progress of
the sub-calls, tokens and time. Without a terminal (a pipe, CI), and for every run after the first, the same blocks are
drawn when they are finished, without the moving part.
"""

from __future__ import annotations

import re
import time
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Self

from rlm_kernel.text import format_duration
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.console import render
from rlm_kernel.trajectory.console.screen import Screen, standard_error
from rlm_kernel.trajectory.console.status import Status, Subcalls
from rlm_kernel.types import ModelUsageSummary, Usage, UsageSummary

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType

_FENCE = re.compile(r"^ {0,3}(`{3,}+|~{3,}+)[^\n`]*+\n(.*?)(?:^ {0,3}\1[`~]*+[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)

_MAX_PARTS = 20
"""Code blocks of a reply that are drawn one by one: each takes a millisecond, and a reply may hold a million."""


class ConsoleView:
    """Draws the events of one run: call it with each, in order.

    Use it as a context manager, so that the terminal is left tidy however the run ends. A call stores or
    prints and never waits for the model or the kernel; views of different runs may be called from different
    threads.

    Args:
        screen: where to draw; by default stderr, shared by all views of the process.
    """

    def __init__(self, screen: Screen | None = None) -> None:
        self._screen = screen or standard_error()
        self._name = ""
        self._moves = False
        self._status = Status("starting", time.monotonic(), time.monotonic())
        self._model = ""
        self._iterations = 0
        self._max_iterations = 0
        self._unsaid: list[_Part] = []
        self._spent: dict[str, ModelUsageSummary] = {}
        self._subcalls_began = 0.0

    def __enter__(self) -> Self:
        number = self._screen.join()
        self._name = f"run {number} · " if number > 1 else ""
        self._moves = self._screen.claim()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stand_still()
        self._screen.leave()

    def __call__(self, event: events.Event) -> None:  # noqa: C901, PLR0912 (one line for each kind of event)
        """Draw what happened."""
        match event:
            case events.ModelText():
                self._move(self._status.writing(event.text, "the model writes"))
            case events.CellOutput():
                self._move(self._status.writing(_text_of(event)))
            case events.SubcallStarted():
                self._ask(event)
            case events.SubcallAnswered():
                self._hear(event)
            case events.SubcallFinished():
                self._give_up(event.given_up)
            case events.RunStarted():
                self._open(event)
            case events.KernelReady():
                self._greet_kernel(event)
            case events.IterationStarted():
                self._begin_iteration(event)
            case events.ModelReplied():
                self._reply(event)
            case events.Compacted():
                self._spend(self._model, event.reply.usage)
            case events.CellStarted():
                self._begin_cell(event)
            case events.CellFinished():
                self._end_cell(event)
            case events.Notice():
                self._print(render.notice(event.message))
            case events.RunFinished():
                self._finish(event)
            case events.RunFailed():
                self._fail(event)

    def _open(self, event: events.RunStarted) -> None:
        self._model = event.model
        self._max_iterations = event.max_iterations
        started = time.monotonic() - event.time
        self._print(render.header(event))
        self._move(Status("the kernel starts", started, started))

    def _greet_kernel(self, event: events.KernelReady) -> None:
        # The kernel starts while the model writes its first reply, below which this would be no news.
        if not self._spent:
            self._print(render.quiet(f"The kernel is ready, {format_duration(event.seconds)}."))

    def _begin_iteration(self, event: events.IterationStarted) -> None:
        self._say_the_rest()
        self._iterations = event.iteration
        last_word = event.iteration > self._max_iterations
        turn = "last word" if last_word else f"{event.iteration}/{self._max_iterations}"
        self._move(self._status.begin("the model reads", turn))

    def _reply(self, event: events.ModelReplied) -> None:
        self._spend(self._model, event.reply.usage)
        self._print(render.turn(f"{self._name}{event.iteration}", event))
        self._unsaid = _parts(event.reply.text)
        if not any(part.is_code for part in self._unsaid):
            self._say_the_rest()

    def _begin_cell(self, event: events.CellStarted) -> None:
        self._say_until(event.code)
        self._print("", render.code(event.code, event.cell))
        self._move(self._status.begin(f"cell {event.cell} runs"))

    def _end_cell(self, event: events.CellFinished) -> None:
        blocks = [render.output(event.result)]
        if (done := self._status.subcalls) is not None:
            blocks.insert(0, render.subcalls(done, event.time - self._subcalls_began))
        self._print(*blocks)
        self._move(self._status.begin("the results go back"))

    def _ask(self, event: events.SubcallStarted) -> None:
        if self._status.subcalls is None:
            self._subcalls_began = event.time
        self._move(self._status.with_subcalls((self._status.subcalls or Subcalls()).with_call(event)))

    def _hear(self, event: events.SubcallAnswered) -> None:
        self._spend(event.model, event.usage)
        if self._status.subcalls is not None:
            self._move(self._status.with_subcalls(self._status.subcalls.with_answer(event)))

    def _finish(self, event: events.RunFinished) -> None:
        self._say_the_rest()
        self._stand_still()
        done = event.completion
        turns = "1 iteration" if self._iterations == 1 else f"{self._iterations} iterations"
        facts = f"{self._name}{turns} · {format_duration(done.execution_time)}"
        self._print(render.answer(done.response, facts), render.usage(done.usage_summary))

    def _give_up(self, calls: tuple[tuple[str, Usage], ...]) -> None:
        for model, usage in calls:
            self._spend(model, usage)

    def _fail(self, event: events.RunFailed) -> None:
        self._give_up(event.given_up)
        self._say_the_rest()
        self._stand_still()
        spent = [render.usage(UsageSummary(self._spent))] if self._spent else []
        self._print(render.failure(event.error, event.time), *spent)

    def _say_until(self, code: str) -> None:
        """Print what the reply says before this code block; of a block that nobody announced, nothing."""
        wanted = code.strip()
        for place, part in enumerate(self._unsaid):
            if part.is_code and part.text.strip() == wanted:
                self._say(self._unsaid[:place])
                self._unsaid = self._unsaid[place + 1 :]
                return

    def _say_the_rest(self) -> None:
        self._say(self._unsaid)
        self._unsaid = []

    def _say(self, parts: list[_Part]) -> None:
        for part in parts:
            self._print("", render.code(part.text, None) if part.is_code else render.words(part.text))

    def _spend(self, model: str, usage: Usage) -> None:
        if usage == Usage():  # of a call that failed
            return
        self._spent[model] = self._spent.get(model, ModelUsageSummary()).plus(usage)
        self._status = self._status.spending(usage.input_tokens, usage.output_tokens)

    def _print(self, *blocks: RenderableType) -> None:
        self._screen.print(*blocks)

    def _move(self, status: Status) -> None:
        self._status = status
        if self._moves:
            self._screen.move(status)

    def _stand_still(self) -> None:
        if self._moves:
            self._moves = False
            self._screen.release()


class _Part(NamedTuple):
    """A stretch of a reply: prose, or what stands in a fence."""

    text: str
    is_code: bool


def _parts(reply: str) -> list[_Part]:
    """The parts of a reply in order; what follows the first `_MAX_PARTS` code blocks is one of words."""
    parts, end = [], 0
    for fence in islice(_FENCE.finditer(reply), _MAX_PARTS):
        parts += [_Part(reply[end : fence.start()], is_code=False), _Part(fence[2], is_code=True)]
        end = fence.end()
    parts.append(_Part(reply[end:], is_code=False))
    return [part for part in parts if part.text.strip()]


def _text_of(event: events.CellOutput) -> str:
    text = event.output.get("text", "")
    return text if isinstance(text, str) else "".join(text)
