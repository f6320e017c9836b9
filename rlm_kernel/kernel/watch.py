"""Sees that a kernel will never end a request, because a cell has broken what it needs for that.

A cell may compute for hours, in C code that holds the lock of the interpreter, too. So silence is no sign. These are:
the kernel says that it waits for a cell; it has replied, and nothing comes on IOPub; libzmq's own thread in the kernel
does not answer, because the process does not run; its control thread does not answer although the process is idle.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from rlm_kernel.kernel.channels import Channels
from rlm_kernel.kernel.execution import CellExecution

CHECK_SECONDS = 3.0
MAX_WAITS = 2
MAX_UNANSWERED = 3
MAX_SILENT = 20
"""A large message may take long to come through a relay."""
MAX_CHECKS = 3
"""On their way to the guest, which takes none while C code holds the lock."""
MAX_IDLE = 5
IDLE_SHARE = 0.01
"""Of a CPU. C code that holds the lock computes."""

NO_REPLY = "it did not reply any more: what it ran has broken what the kernel needs for that"
STOPPED = "it did not run any more"


class Watch:
    """Watches one request from now on, until `end`. If its kernel will not end it, the connection is given up.

    Args:
        channels: of the kernel.
        request: that runs.
        check: sends a `check` to the guest.
        cpu_seconds: what the kernel's processes have used; None: it is not known.
    """

    def __init__(
        self,
        channels: Channels,
        request: CellExecution,
        check: Callable[[str], None],
        cpu_seconds: Callable[[], float | None],
    ) -> None:
        self._channels = channels
        self._request = request
        self._check = check
        self._cpu_seconds = cpu_seconds
        self._used: float | None = None
        self._idle = 0
        self._received = channels.received
        self._silent = 0
        self._timer = self._later()

    def end(self) -> None:
        """The request is over."""
        self._timer.cancel()

    def _later(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(CHECK_SECONDS, self._look)

    def _look(self) -> None:
        if why := self._lost():
            self._channels.give_up(why)
            return
        self._channels.ask()
        if self._request.checks < MAX_CHECKS:
            self._request.checks += 1
            self._check(self._request.id)
        self._timer = self._later()

    def _lost(self) -> str:
        """Why the request will not end; empty if it may."""
        request, received = self._request, self._channels.received
        is_silent = request.reply is not None and received is not None and received == self._received
        self._silent, self._received = self._silent + 1 if is_silent else 0, received
        if self._channels.unanswered >= MAX_UNANSWERED:
            return STOPPED
        is_stuck = self._is_idle(is_silent or request.checks >= MAX_CHECKS)
        return NO_REPLY if is_stuck or request.waits >= MAX_WAITS or self._silent >= MAX_SILENT else ""

    def _is_idle(self, is_mute: bool) -> bool:
        """Whether the kernel has said nothing and computed nothing for some time."""
        before, self._used = self._used, self._cpu_seconds() if is_mute else None
        share = math.inf if before is None or self._used is None else (self._used - before) / CHECK_SECONDS
        self._idle = self._idle + 1 if share < IDLE_SHARE else 0
        return self._idle >= MAX_IDLE
