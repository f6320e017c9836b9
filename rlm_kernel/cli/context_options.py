"""The option `--context` of a command, and a warning if piped input is not read."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from rlm_kernel import terminal
from rlm_kernel.inputs import add_limit


class Once(argparse.Action):
    """An option that may be given once. Without this the last value would be used, without a message."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 (part of argparse's interface)
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Store the value.

        Raises:
            argparse.ArgumentError: there is one already.
        """
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "it was given twice; to give several files, name their folder")
        setattr(namespace, self.dest, values)


def add_arguments(add: Callable[..., object], help_: str) -> None:
    """Declare `--context` and its limit.

    Args:
        add: `add_argument` of a parser.
        help_: what the input is for.
    """
    add("--context", action=Once, metavar="FILE|DIR|-", help=help_)
    add_limit(add)


def warn_of_unread_stdin() -> None:
    """Say on stderr that stdin is not read, if something was piped in."""
    if _holds_something(sys.stdin):
        terminal.note("rlm: stdin is not read; use --context - to read it")


def _holds_something(stream: TextIO | None) -> bool:
    """Whether a stream is a file or a pipe that holds something. Does not wait for the writer of a pipe."""
    try:
        file = os.fstat(stream.fileno()) if stream is not None else None
    except (OSError, ValueError):
        return False  # closed, or not of the system
    if file is None or stat.S_ISREG(file.st_mode):
        return file is not None and file.st_size > 0
    return stat.S_ISFIFO(file.st_mode) and stream is not None and _bytes_waiting(stream.fileno()) > 0


def _bytes_waiting(pipe: int) -> int:
    if sys.platform == "win32":
        return 0
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
