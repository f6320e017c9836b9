"""The exit code of each kind of error, and the one line that reports it."""

from __future__ import annotations

from typing import NamedTuple

from rlm_kernel.errors import CancellationError, ConfigError, KernelError, LimitError, LMError, RecordingError
from rlm_kernel.text import one_line

OK = 0
FAILED = 1
DIFFERENT = 7
SOME_FAILED = 8
STOPPED = 130
PIPE_CLOSED = 141


class Exit(NamedTuple):
    """One row of the table of exit codes. `errors`: the classes of error that end with this code."""

    code: int
    meaning: str
    errors: tuple[type[BaseException], ...] = ()


TABLE = (
    Exit(OK, "success"),
    Exit(FAILED, "doctor: local kernels do not work; demo: wrong answer; attach: error; otherwise: a bug"),
    Exit(2, "wrong usage, configuration or record", (ConfigError, RecordingError)),
    Exit(3, "a limit of the run was reached", (LimitError,)),
    Exit(4, "a model provider failed", (LMError,)),
    Exit(5, "the kernel did not start, or it died", (KernelError,)),
    Exit(6, "not implemented", (NotImplementedError,)),
    Exit(DIFFERENT, "a replay differs from its record, two runs differ, or a trail is not valid"),
    Exit(SOME_FAILED, "batch: some tasks have no answer"),
    Exit(STOPPED, "stopped by Ctrl-C", (CancellationError, KeyboardInterrupt)),
    Exit(PIPE_CLOSED, "the reader of the output closed the pipe", (BrokenPipeError,)),
)


def code_of(error: BaseException) -> int:
    """The exit code for an error; 1 for one that is not in the table."""
    return next((row.code for row in TABLE if isinstance(error, row.errors)), FAILED)


def explain(error: BaseException) -> str:
    """The error in one line for stderr."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    message = one_line(str(error))
    if code_of(error) != FAILED:
        return message
    return f"{type(error).__name__}: {message} (run it again with --debug to see the traceback)"


def describe_table() -> str:
    """The table, for `--help`."""
    return "exit codes:\n" + "\n".join(f"  {row.code:>3}  {row.meaning}" for row in TABLE)
