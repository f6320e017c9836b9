"""Where the commands keep what they ran."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rlm_kernel.trajectory.log.logger import RLMLogger

FOLDER = "rlm_logs"


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


def tell(logger: RLMLogger | None) -> None:
    """Say where the run is kept, on stderr."""
    if logger is not None and logger.notebook_path is not None:
        with contextlib.suppress(BrokenPipeError):  # whoever read stderr may have gone; the answer goes to stdout
            print(f"The notebook of this run: {os.path.relpath(logger.notebook_path)}", file=sys.stderr, flush=True)
