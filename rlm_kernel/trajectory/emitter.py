"""Emit the events of a run, each with the time at which it happened."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from rlm_kernel.trajectory.events import Event, OnEvent


class Emitter:
    """The stream of events of one run: call it with the kind of an event and its fields.

    Args:
        on_event: reads the stream.
        seconds: of an earlier run that this one goes on from; the clock goes on from there.
    """

    def __init__(self, on_event: OnEvent, seconds: float = 0.0) -> None:
        self._on_event = on_event
        self._started = time.perf_counter() - seconds

    @property
    def seconds(self) -> float:
        """Since the run started."""
        return time.perf_counter() - self._started

    def __call__(self, kind: type[Event], /, **fields: Any) -> None:
        """Tell the reader of an event that happens now."""
        self._on_event(kind(time=self.seconds, **fields))

    def again(self, event: Event) -> None:
        """Tell the reader of an event of an earlier run, as happening now."""
        self._on_event(replace(event, time=self.seconds))
