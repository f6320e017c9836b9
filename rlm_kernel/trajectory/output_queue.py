"""Pieces of output that wait for a slow reader: a cell may print faster than they are read, and memory is bounded."""

from __future__ import annotations

from rlm_kernel.trajectory.events import CellOutput, ChildEvent, Event
from rlm_kernel.types import Output

MAX_WAITING_CHARACTERS = 8_000_000
"""Of all pieces that were not read. More are left out; `CellFinished` has the outputs of the cell."""

PIECE_COST = 2_000
"""Charged for each piece beside its characters: an event in a queue."""


class OutputQueue:
    """Counts what waits. One thread adds, another one takes, so each has a number of its own."""

    def __init__(self) -> None:
        self._added = 0
        self._taken = 0

    def add(self, event: Event) -> bool:
        """Whether an event may wait for its reader, which is then counted. All but pieces of output may."""
        size = _size(event)
        if size and self._added - self._taken + size > MAX_WAITING_CHARACTERS:
            return False
        self._added += size
        return True

    def take(self, event: Event) -> None:
        """The reader has an event."""
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
