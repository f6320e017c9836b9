"""Pieces of output that wait for a slow reader of `stream()`, within a bound on memory."""

from __future__ import annotations

from rlm_kernel.trajectory.events import CellOutput, ChildEvent, Event
from rlm_kernel.types import Output

MAX_WAITING_CHARACTERS = 8_000_000
"""Of all pieces that were not read yet. Further ones are dropped; `CellFinished` has all outputs of the cell."""

PIECE_COST = 2_000
"""Counted for each piece in addition to its characters, for the event in the queue."""


class OutputQueue:
    """Counts the waiting pieces. One thread adds and another one takes, so each has its own counter."""

    def __init__(self) -> None:
        self._added = 0
        self._taken = 0

    def add(self, event: Event) -> bool:
        """Count an event that is to wait for its reader. Returns False if there is no room for a piece of output."""
        size = _size(event)
        if size and self._added - self._taken + size > MAX_WAITING_CHARACTERS:
            return False
        self._added += size
        return True

    def take(self, event: Event) -> None:
        """Count an event that the reader has taken."""
        self._taken += _size(event)


def _size(event: Event) -> int:
    while isinstance(event, ChildEvent):
        event = event.event
    return PIECE_COST + _characters(event.output) if isinstance(event, CellOutput) else 0


def _characters(output: Output) -> int:
    size, waiting = 0, [output]
    while waiting:
        value: object = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        else:
            size += len(value) if isinstance(value, str) else 1
    return size
