"""The progress of a run with all its turns and children, for a view that is drawn a few times a second.

Events come in the engine's thread, and the view is drawn in the kernel's main thread. So a reader takes the lock.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event
from rlm_kernel.trajectory.progress import RunProgress
from rlm_kernel.trajectory.tree import Counts, Trajectory, sum_usage
from rlm_kernel.types import UsageSummary

MAX_TURNS = 40
"""The view shows the latest ones."""


class Progress(RunProgress):
    """A reader of the stream of one run; each child has one of its own.

    Attributes:
        lock: to be held while the others are read.
        run: the run so far, without turns that the view does not show any more.
        turns_before: how many of those there are.
        children: the children of the running cell, by cell, call and place in the batch.
        draft: the last content of `answer`, or None.
        changed: whether an event came since the view was drawn.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.RLock()
        self.run = Trajectory()
        self.turns_before = 0
        self._usage_before = UsageSummary()
        self._counts_before = Counts()
        self.children: dict[tuple[Any, ...], Progress] = {}
        self.draft: str | None = None
        self.changed = True

    def __repr__(self) -> str:
        return "The live view"

    def __call__(self, event: Event) -> None:
        """Take the next event."""
        with self.lock:
            super().__call__(event)
            self.run.add(event)
            if isinstance(event, events.ChildEvent):
                key = event.cell, event.query, event.index
                self.children.setdefault(key, Progress())(event.event)
            elif isinstance(event, events.CellFinished):
                self.draft = event.result.report.draft or self.draft
            elif isinstance(event, events.IterationStarted):
                self._forget(self.run.take_past(MAX_TURNS))
            self.changed = True

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.run.completion is not None or self.run.failure is not None

    @property
    def seconds(self) -> float:
        """Seconds since the run began, or its duration if it is over."""
        return self.run.seconds if self.over else time.monotonic() - self.began

    @property
    def usage(self) -> UsageSummary:
        """The usage of the run and its children so far, by model."""
        with self.lock:
            return self._usage_before.plus(sum_usage(self.run.spending()))

    def stop(self, why: BaseException) -> None:
        """Mark the run as over without an event."""
        with self.lock:
            if not self.over:
                self.run.failure, self.run.seconds = why, self.seconds

    def counts(self) -> Counts:
        """The sub-calls and children so far, those of children included."""
        return self._counts_before.plus(self.run.counts())

    def _forget(self, past: Trajectory) -> None:
        self.turns_before += len(past.turns)
        self._usage_before = self._usage_before.plus(sum_usage(past.spending()))
        self._counts_before = self._counts_before.plus(past.counts())

    def _begin(self, activity: str) -> None:
        super()._begin(activity)
        self.children = {}
