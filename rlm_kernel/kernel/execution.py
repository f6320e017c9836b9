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
    """It is over when the reply has arrived and the kernel has reported that it is idle.

    Attributes:
        id: of the message.
        collector: the outputs of the cell so far.
        over: done when the execution is over.
        replied: done when the reply has arrived.
        overdue: done when it was interrupted and its grace period is over.
        reply: the content of the reply.
        idle: whether the kernel is idle again.
        notes: texts that the host adds to the outputs.
        checks: sent to the guest and not answered yet.
        waits: how often the kernel has said that it waits for a cell, although this one is not over.
    """

    id: str
    collector: OutputCollector = field(default_factory=OutputCollector)
    over: asyncio.Future[None] = field(default_factory=_future)
    replied: asyncio.Future[None] = field(default_factory=_future)
    overdue: asyncio.Future[None] = field(default_factory=_future)
    reply: dict[str, Any] | None = None
    idle: bool = False
    notes: list[str] = field(default_factory=list)
    checks: int = 0
    waits: int = 0

    def note(self, text: str) -> None:
        """Add a note for the model to the outputs, unless it is there already or there are `MAX_NOTES`."""
        if text not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes.append(text)

    def give_grace(self, seconds: float) -> None:
        """Start the grace period after an interrupt: the kernel may never report the end."""

        def late() -> None:
            if not self.overdue.done():
                self.overdue.set_result(None)

        self.overdue.get_loop().call_later(seconds, late)

    def check(self) -> None:
        """Complete the futures whose condition is met."""
        if self.reply is not None and not self.replied.done():
            self.replied.set_result(None)
        if self.reply is not None and self.idle and not self.over.done():
            self.over.set_result(None)

    def result(
        self, code: str, status: CellStatus, report: CellReport | None, seconds: float, *, alive: bool
    ) -> CellResult:
        """The result of the cell. `alive`: whether the kernel can run another one."""
        self._add_error_of_reply()
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

    def _add_error_of_reply(self) -> None:
        """After an interrupt while IPython displays a traceback, the error is in the reply only."""
        if self.reply is not None and self.reply.get("status") == "error" and self.collector.error is None:
            with contextlib.suppress(KeyError, TypeError, ValueError):  # a cell may have forged the reply
                self.collector.add("error", self.reply)
