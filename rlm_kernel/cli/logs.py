"""Where the commands log their runs."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rlm_kernel import terminal
from rlm_kernel.trajectory.log import FOLDER

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rlm_kernel.trajectory.log.logger import RLMLogger


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--log-dir", default=FOLDER, metavar="DIR", help="where log and notebook go (default: ./%(default)s)"
    )
    group.add_argument("--no-log", action="store_true", help="keep neither")


def logger(args: Namespace) -> RLMLogger | None:
    """What keeps the run, as the options say."""
    if args.no_log:
        return None
    from rlm_kernel.trajectory.log.logger import RLMLogger

    return RLMLogger(args.log_dir)


@contextlib.contextmanager
def report_when_done(logger: RLMLogger | None, *, quiet: bool) -> Iterator[None]:
    """Say on stderr where the run inside is kept, and how to go on when it did not come to an answer."""
    ended = False
    try:
        yield
        ended = True
    finally:
        if not quiet:
            report(logger, ended=ended)


def report(logger: RLMLogger | None, *, ended: bool = True) -> None:
    """Say where the run is kept, on stderr. `ended`: it came to an answer, so nobody needs to go on from there."""
    said = []
    if logger is not None and logger.notebook_path is not None:
        said.append(f"The notebook of this run: {os.path.relpath(logger.notebook_path)}")
    if logger is not None and logger.log_file_path is not None and not ended:
        said.append(f"To go on from there: rlm resume {shlex.quote(os.path.relpath(logger.log_file_path))}")
    with contextlib.suppress(BrokenPipeError):  # whoever read stderr may have gone; the answer goes to stdout
        for line in said:
            terminal.note(line)
