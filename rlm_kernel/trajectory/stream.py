"""Say what happens, once, with the time it happened."""

from __future__ import annotations

import time
from typing import Any

from rlm_kernel.trajectory.events import Event, OnEvent


class EventStream:
    """The stream of events of one run: call it with the kind of an event and its fields.

    Args:
        on_event: reads the stream.
    """

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the run started."""
        return time.perf_counter() - self._started

    def __call__(self, kind: type[Event], /, **fields: Any) -> None:
        """Tell the reader of an event that happens now."""
        self._on_event(kind(time=self.seconds, **fields))
