"""One execute_request in progress."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.kernel.outputs import OutputCollector, cell_number
from rlm_kernel.types import CellReport, CellResult, CellStatus

MAX_NOTES = 20


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class CellExecution:
    """Over when the reply has come and the kernel has said that it is idle.

    Attributes:
        id: of the message.
        collector: what the cell has shown so far.
        over: done then.
        replied: done when the reply has come.
        overdue: done when it was interrupted and its grace is over.
        reply: the content of the reply.
        idle: whether the kernel has said so.
        notes: what the host adds to what the cell has shown.
    """

    id: str
    collector: OutputCollector = field(default_factory=OutputCollector)
    over: asyncio.Future[None] = field(default_factory=_future)
    replied: asyncio.Future[None] = field(default_factory=_future)
    overdue: asyncio.Future[None] = field(default_factory=_future)
    reply: dict[str, Any] | None = None
    idle: bool = False
    notes: list[str] = field(default_factory=list)

    def note(self, words: str) -> None:
        """Have the model read this with what the cell shows; the same twice or more than a few are not added."""
        if words not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes.append(words)

    def give_grace(self, seconds: float) -> None:
        """It was interrupted: it may also be that the kernel never says how it ended."""

        def late() -> None:
            if not self.overdue.done():
                self.overdue.set_result(None)

        self.overdue.get_loop().call_later(seconds, late)

    def check(self) -> None:
        """See how far it is."""
        if self.reply is not None and not self.replied.done():
            self.replied.set_result(None)
        if self.reply is not None and self.idle and not self.over.done():
            self.over.set_result(None)

    def result(
        self, code: str, status: CellStatus, report: CellReport | None, seconds: float, *, alive: bool
    ) -> CellResult:
        """What the cell did. `alive`: whether the kernel can run another."""
        self._take_what_was_not_shown()
        if self.notes:
            self.collector.add("stream", {"name": "stderr", "text": "\n".join(["", *self.notes, ""])})
        return CellResult(
            code=code,
            status=status,
            outputs=self.collector.outputs(),
            error=self.collector.error,
            report=report or CellReport(),
            execution_count=cell_number((self.reply or {}).get("execution_count")),
            seconds=seconds,
            dropped_characters=self.collector.dropped,
            kernel_alive=alive,
        )

    def _take_what_was_not_shown(self) -> None:
        """An interrupt that comes while IPython shows a traceback leaves it in the reply only."""
        if self.reply is not None and self.reply.get("status") == "error" and self.collector.error is None:
            with contextlib.suppress(KeyError, TypeError, ValueError):  # a cell may have forged the reply
                self.collector.add("error", self.reply)
