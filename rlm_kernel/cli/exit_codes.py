"""The exit code of each kind of error, and the one line that reports it."""

from __future__ import annotations

from typing import NamedTuple

from rlm_kernel.errors import CancellationError, ConfigError, KernelError, LimitError, LMError, RecordingError
from rlm_kernel.text import plain

OK = 0
FAILED = 1
DIFFERENT = 7
STOPPED = 130
PIPE_CLOSED = 141


class Exit(NamedTuple):
    """One row of the table of exit codes. `errors`: the kinds of error that end so."""

    code: int
    meaning: str
    errors: tuple[type[BaseException], ...] = ()


TABLE = (
    Exit(OK, "it worked"),
    Exit(FAILED, "doctor: no local kernel; demo: a code question came out wrong; attach: an error; else: a bug"),
    Exit(2, "wrong usage, configuration or record", (ConfigError, RecordingError)),
    Exit(3, "a limit of the run was reached", (LimitError,)),
    Exit(4, "a model provider failed", (LMError,)),
    Exit(5, "the kernel did not start, or died", (KernelError,)),
    Exit(6, "not built yet", (NotImplementedError,)),
    Exit(DIFFERENT, "a replay is not as the record, or two runs differ"),
    Exit(STOPPED, "stopped by Ctrl-C", (CancellationError, KeyboardInterrupt)),
    Exit(PIPE_CLOSED, "whoever read the output has gone", (BrokenPipeError,)),
)


def code_of(error: BaseException) -> int:
    """The exit code for an error; 1 for one that nobody expected."""
    return next((row.code for row in TABLE if isinstance(error, row.errors)), FAILED)


def explain(error: BaseException) -> str:
    """The error in one line for stderr."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    said = in_a_line(str(error))
    if code_of(error) != FAILED:
        return said
    return f"{type(error).__name__}: {said} (run it again with --debug to see where)"


def in_a_line(text: str) -> str:
    """A text without what a terminal would obey, in one line."""
    return " ".join(plain(text).split())


def describe_table() -> str:
    """The table, for `--help`."""
    return "exit codes:\n" + "\n".join(f"  {row.code:>3}  {row.meaning}" for row in TABLE)
