"""The option of a command that names its context; a warning when piped input is not read."""

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
    """An option that may be given once: the last one would win in silence."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 (argparse hands it over)
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Keep the value, if it is the first."""
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "it was given twice; a folder holds several files")
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
    """Say on stderr that what was piped in is not read, if something was."""
    if _holds_something(sys.stdin):
        terminal.note("rlm: stdin is not read: --context - makes it the context")


def _holds_something(stream: TextIO | None) -> bool:
    """Whether a stream is a file or a pipe with something in it; a pipe is not waited for."""
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
