"""Show a recorded run in the terminal.

It shows the question, the model's code and its output, the sub-calls, the answer and the cost.

FILE is the log of a run (.jsonl) or its notebook (.ipynb).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_kernel import terminal
from rlm_kernel.cli import exit_codes

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

NAME = "show"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("file", metavar="FILE", help="a log or its notebook")


def execute(args: Namespace) -> int:
    """Draw the run on stdout.

    Raises:
        RecordingError: it cannot be read.
    """
    from rlm_kernel.replay.steps import read_notebook, run_of
    from rlm_kernel.trajectory.console.live_display import ConsoleView
    from rlm_kernel.trajectory.console.screen import Screen
    from rlm_kernel.trajectory.log.reader import read_log
    from rlm_kernel.trajectory.tree import events_of
    from rlm_kernel.untrusted.plain_console import PlainConsole

    recording = read_log(args.file)
    if args.file.endswith(".ipynb"):
        recording = run_of(recording, read_notebook(Path(args.file)).metadata.get("rlm", {}))
    run = recording.trajectory
    with ConsoleView(Screen(PlainConsole(file=sys.stdout), live=False)) as view:
        for event in events_of(run):
            view(event)
    if not run.is_over:
        terminal.print_result(f"{run.state.capitalize()}: the record ends here, {run.seconds:.1f} s after the start.")
    return exit_codes.OK
