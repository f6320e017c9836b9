"""Processes that have left their kernel, found by the private directory of the kernel in their environment (Linux)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable
from pathlib import Path


def mentions(pid: int, directories: Iterable[bytes]) -> bool:
    """Whether the environment of a process names one of the directories."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return any(directory + b"/" in environ for directory in directories)


def kill(directory: str, seconds: float, *, spared: Collection[int] = ()) -> bool:
    """Kill the processes that name a directory, again and again while there are any.

    Args:
        directory: private to a kernel.
        seconds: limit.
        spared: processes that are not killed.

    Returns:
        Whether no other one is left.
    """
    until = time.monotonic() + seconds
    while left := [pid for pid in processes_of(directory) if pid not in spared]:
        if time.monotonic() > until:
            return False
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    return True


def processes_of(directory: str) -> list[int]:
    """The processes that name a directory."""
    try:
        known = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    except FileNotFoundError:
        return []
    return [pid for pid in known if pid != os.getpid() and mentions(pid, [os.fsencode(directory)])]
