"""Sees that a kernel will never end a request, because a cell has broken what it needs for that.

A cell may compute for hours, in C code that holds the lock of the interpreter, too. So silence is no sign. These are:
the kernel says that it waits for a cell; it has replied, and nothing comes on IOPub; libzmq's own thread in the kernel
does not answer, because the process does not run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rlm_kernel.kernel.channels import Channels
from rlm_kernel.kernel.execution import CellExecution

CHECK_SECONDS = 3.0
MAX_WAITS = 2
MAX_UNANSWERED = 3
MAX_CHECKS = 3
"""On their way to the guest, which takes none while C code holds the lock."""

NO_REPLY = "it did not reply any more: what it ran has broken what the kernel needs for that"
STOPPED = "it did not run any more"


class Watch:
    """Watches one request from now on, until `end`. If its kernel will not end it, the connection is given up.

    Args:
        channels: of the kernel.
        request: that runs.
        check: sends a `check` to the guest.
    """

    def __init__(self, channels: Channels, request: CellExecution, check: Callable[[str], None]) -> None:
        self._channels = channels
        self._request = request
        self._check = check
        self._messages = channels.messages
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
        request, messages = self._request, self._channels.messages
        is_silent = request.reply is not None and messages == self._messages
        self._silent, self._messages = self._silent + 1 if is_silent else 0, messages
        if self._channels.unanswered >= MAX_UNANSWERED:
            return STOPPED
        return NO_REPLY if request.waits >= MAX_WAITS or self._silent >= MAX_WAITS else ""
