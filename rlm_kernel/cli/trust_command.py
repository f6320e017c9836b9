"""Sign the log of another user, or of an older version, as yours.

The log is signed with your key. `rlm replay`, `rlm resume` and `rlm export` then use the files and
servers that it names, without asking; they are listed on stderr. Logs of your own runs are signed
when they are written. For a notebook, its log in the same folder is signed; cells that were edited
in the notebook still need --trust.
"""

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


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("file", metavar="FILE", help="a log or its notebook")


def execute(args: Namespace) -> int:
    """Sign the log, and those of the runs before it in the same kernel.

    Raises:
        RecordingError: the file is not a log of this library.
        ConfigError: the signature cannot be written.
    """
    from rlm_kernel.engine.record_access import Use, reaches
    from rlm_kernel.trajectory.log import signature
    from rlm_kernel.trajectory.log.reader import earlier_recordings, read_log

    recording = read_log(args.file)
    for reach in reaches(recording, Use(models=True)):
        terminal.print_note(f"rlm: it uses {reach}")
    for one in (*earlier_recordings(recording), recording):
        if one.flaw is not None:
            try:
                signature.sign(one.path)
            except OSError as error:
                raise ConfigError(f"{one.path} cannot be signed: {error}.") from error
        terminal.print_result(str(one.path))
    return exit_codes.OK


def add_option(parser: ArgumentParser) -> None:
    """Declare `--trust` for a command that uses a record."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let the record of another user use the files and servers that it names, and run cells that were edited "
        "in a notebook (default: ask in a terminal, otherwise no)",
    )


def trust_of(args: Namespace) -> Trust:
    """Whether a record of another user may use what it names: yes with `--trust`, else ask in a terminal, else no."""
    if args.trust:
        return True
    return terminal.confirm if sys.stdin.isatty() and sys.stderr.isatty() else False
