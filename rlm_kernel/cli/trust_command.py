"""`rlm trust`: sign the log of somebody else, so that it is read as one's own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rlm_kernel import terminal
from rlm_kernel.cli import exit_codes
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rlm_kernel.engine.record_access import Trust

NAME = "trust"
HELP = "sign a recorded run of somebody else, or of an older version, as one of yours"
DESCRIPTION = """\
Sign the log of a recorded run with your key, as one that you made: `rlm replay`, `rlm resume` and `rlm export` then
use what it opens of this machine, which is listed on stderr, without a question. The log of a notebook is the one
beside it. The logs of your own runs are signed when they are written.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("file", metavar="FILE", help="a log or its notebook")


def execute(args: Namespace) -> int:
    """Sign the log, and those of the runs before it in the same kernel.

    Raises:
        RecordingError: it is no log of ours.
        ConfigError: it cannot be signed.
    """
    from rlm_kernel.engine.record_access import Use, reaches
    from rlm_kernel.trajectory.log import signature
    from rlm_kernel.trajectory.log.reader import earlier_recordings, read_log

    recording = read_log(args.file)
    for reach in reaches(recording, Use(models=True)):
        terminal.note(f"rlm: it uses {reach}")
    for one in (*earlier_recordings(recording), recording):
        if one.flaw is not None:
            try:
                signature.sign(one.path)
            except OSError as error:
                raise ConfigError(f"{one.path} cannot be signed: {error}.") from error
        terminal.result(str(one.path))
    return exit_codes.OK


def add_option(parser: ArgumentParser) -> None:
    """Declare `--trust` for a command that uses a record."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let the record of somebody else use what it opens of this machine (default: ask in a terminal, else no)",
    )


def trust_of(args: Namespace) -> Trust:
    """Whether a stranger's record may do what it says, as the command line or else the person at the terminal says."""
    if args.trust:
        return True
    return terminal.confirm if sys.stdin.isatty() and sys.stderr.isatty() else False
