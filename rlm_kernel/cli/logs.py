"""Where the commands log their runs."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from rlm_kernel import terminal
from rlm_kernel.trajectory.log import FOLDER

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rlm_kernel.trajectory.log.logger import RLMLogger


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--log-dir", default=FOLDER, metavar="DIR", help="folder for the log and the notebook (default: ./%(default)s)"
    )
    group.add_argument("--no-log", action="store_true", help="write neither")


def logger(args: Namespace) -> RLMLogger | None:
    """The logger that the options ask for; None: no log."""
    if args.no_log:
        return None
    from rlm_kernel.trajectory.log.logger import RLMLogger

    return RLMLogger(args.log_dir)


@contextlib.contextmanager
def report_when_done(logger: RLMLogger | None, *, quiet: bool) -> Iterator[None]:
    """Run the block, then say on stderr where its log is, and how to resume a run that has no answer."""
    ended = False
    try:
        yield
        ended = True
    finally:
        if not quiet:
            report(logger, ended=ended)


def report(logger: RLMLogger | None, *, ended: bool = True) -> None:
    """Say on stderr where the notebook of a run is, and how to resume it. `ended`: it has an answer."""
    lines = []
    if logger is not None and _is_written(logger.notebook_path):
        lines.append(f"The notebook of this run: {os.path.relpath(logger.notebook_path)}")
    if logger is not None and _is_written(logger.log_file_path) and not ended:
        lines.append(f"To resume it: rlm resume {shlex.quote(os.path.relpath(logger.log_file_path))}")
    with contextlib.suppress(BrokenPipeError):  # a closed stderr must not keep the answer from stdout
        for line in lines:
            terminal.print_note(line)


def _is_written(path: str | None) -> TypeGuard[str]:
    """Whether the run wrote this file: its path is known before."""
    return path is not None and Path(path).is_file()
