"""One execute_request under way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.outputs import OutputCollector


@dataclass(slots=True)
class Request:
    """Over when the reply has come and the kernel has said that it is idle.

    Attributes:
        id: of the message.
        over: done then.
        replied: done when the reply has come.
        collector: what the cell has shown so far.
        reply: the content of the reply.
        idle: whether the kernel has said so.
    """

    id: str
    over: asyncio.Future[None]
    replied: asyncio.Future[None]
    collector: OutputCollector = field(default_factory=OutputCollector)
    reply: dict[str, Any] | None = None
    idle: bool = False

    def check(self) -> None:
        """See how far it is."""
        if self.reply is not None and not self.replied.done():
            self.replied.set_result(None)
        if self.reply is not None and self.idle and not self.over.done():
            self.over.set_result(None)
