"""The progress of a run: the stream of events, collected for a view that is drawn a few times a second.

Events come in the engine's thread, the view is drawn in the kernel's main thread: a reader takes the lock.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from rlm_kernel.text import plain
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.console.render import join_text
from rlm_kernel.trajectory.console.status import Subcalls
from rlm_kernel.trajectory.events import Event
from rlm_kernel.trajectory.tree import Trajectory
from rlm_kernel.types import UsageMeter, UsageSummary

TAIL_CHARACTERS = 4_000


class Progress:
    """A reader of the stream of one run; each child has one of its own.

    Attributes:
        lock: to be held while the others are read.
        run: the run so far.
        doing: what happens at this moment, in a few words.
        since: when that began, by `time.monotonic`.
        began: when the run began, by `time.monotonic`.
        tail: the end of what is being written or printed.
        subcalls: those of the running cell, added up; None when there are none.
        children: the children of the running cell, by cell, call and place in the batch.
        draft: the last content of `answer`, or None.
        changed: whether there is something new since a view last said that it is drawn.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.run = Trajectory()
        self.doing = "starting"
        self.since = self.began = time.monotonic()
        self.tail = ""
        self.subcalls: Subcalls | None = None
        self.children: dict[tuple[Any, ...], Progress] = {}
        self.draft: str | None = None
        self.changed = True

    def __repr__(self) -> str:
        return "The live view"

    def __call__(self, event: Event) -> None:
        """Take the next event."""
        with self.lock:
            self.run.add(event)
            self._follow(event)
            self.changed = True

    @property
    def turn(self) -> str:
        """Which turn of how many, such as ``2/30``; empty before the first."""
        if self.run.started is None or not self.run.turns:
            return ""
        iteration, limit = self.run.turns[-1].iteration, self.run.started.max_iterations
        return f"{iteration}/{limit}" if iteration <= limit else "last word"

    @property
    def over(self) -> bool:
        """Whether the run has ended, well or not."""
        return self.run.completion is not None or self.run.failure is not None

    @property
    def seconds(self) -> float:
        """Since the run began; of one that is over, what it took."""
        return self.run.seconds if self.over else time.monotonic() - self.began

    def stop(self, why: BaseException) -> None:
        """The run is over, whether or not it has said so."""
        with self.lock:
            if not self.over:
                self.run.failure, self.run.seconds = why, self.seconds

    def usage(self) -> UsageSummary:
        """What the run and its children cost so far, by model."""
        meter = UsageMeter()
        with self.lock:
            for model, usage in self.run.spending():
                meter.add(model, usage)
        return meter.summary()

    def asked(self) -> int:
        """How many prompts of sub-calls there were."""
        return sum(call.started.count for cell in self.run.cells for call in cell.calls)

    def _follow(self, event: Event) -> None:  # noqa: C901 (one case for each kind)
        match event:
            case events.RunStarted():
                self.began = time.monotonic() - event.time
            case events.ModelText():
                self._write(event.text, "the model writes")
            case events.CellOutput():
                self._write(_text_of(event.output), self.doing)
            case events.IterationStarted():
                self._begin("the model reads")
            case events.ModelReplied():
                self._begin("the reply is taken")
            case events.CellStarted():
                self._begin(f"cell {event.cell} runs")
            case events.SubcallStarted():
                self.subcalls = (self.subcalls or Subcalls()).with_call(event)
            case events.SubcallAnswered() if self.subcalls is not None:
                self.subcalls = self.subcalls.with_answer(event)
            case events.ChildEvent():
                key = event.cell, event.query, event.index
                self.children.setdefault(key, Progress())(event.event)
            case events.CellFinished():
                self.draft = event.result.report.draft or self.draft
                self._begin("the results go back")

    def _begin(self, doing: str) -> None:
        self.doing, self.since, self.tail = doing, time.monotonic(), ""
        self.subcalls, self.children = None, {}

    def _write(self, text: str, doing: str) -> None:
        self.doing, self.tail = doing, (self.tail + text)[-TAIL_CHARACTERS:]


def _text_of(output: dict[str, Any]) -> str:
    return plain(join_text(output.get("text", ""))[-2 * TAIL_CHARACTERS :])
