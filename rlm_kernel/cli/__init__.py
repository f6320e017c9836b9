"""The command line: `rlm run`, `rlm demo`, what is done with recorded runs, `rlm doctor`.

What was asked for goes to stdout and all else to stderr; an error is one line there, and the exit code says of
which kind it is:

      0  it worked
      1  doctor: no local kernel; demo: a code question came out wrong; attach: an error; else: a bug
      2  wrong usage, configuration or record (ConfigError, RecordingError)
      3  a limit of the run was reached (LimitError)
      4  a model provider failed (LMError)
      5  the kernel did not start, or died (KernelError)
      6  not built yet (NotImplementedError)
      7  a replay is not as the record, or two runs differ
    130  stopped by Ctrl-C (CancellationError)
    141  whoever read the output has gone
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from rlm_kernel import __version__, terminal
from rlm_kernel.cli import (
    attach,
    demo,
    diff,
    doctor,
    exit_codes,
    export,
    install_kernel,
    replay,
    resume,
    run,
    show,
    trust_command,
    view,
)
from rlm_kernel.text import suggestion

_LAST_SECONDS = 0.4


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line and return its exit code.

    Args:
        argv: the arguments; those of the process when None. Only then may Ctrl-C end the process the hard way.
    """
    args, unknown = parser().parse_known_args(argv)
    if unknown:
        options = re.findall(r"--[\w-]+", args.parser.format_usage())
        meant = suggestion(unknown[0].partition("=")[0], options, "", cutoff=0.7)
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
    try:
        with _warnings_in_a_line():
            code: int = args.command(args)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (every error ends here, and none in silence)
        return _report(error, debug=args.debug, owns_process=argv is None)
    return code


class _Parser(argparse.ArgumentParser):
    """One whose errors quote arguments as text: the name of a file comes from elsewhere."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            terminal.PlainStream(file or sys.stderr).write(message)


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = _Parser(
        prog="rlm",
        description="Recursive Language Models whose REPL is a real Jupyter kernel.",
        epilog=exit_codes.describe_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"rlm-kernel {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (run, demo, replay, resume, show, view, diff, export, trust_command, attach, install_kernel, doctor):
        command = commands.add_parser(
            module.NAME,
            help=module.HELP,
            description=module.DESCRIPTION,
            epilog=exit_codes.describe_table(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.set_defaults(command=module.execute, parser=command)
    return top


@contextlib.contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Show what the library warns of as one line, without the place in our code; other warnings as Python does."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, UserWarning | RuntimeWarning):
            terminal.note(f"rlm: {exit_codes.in_a_line(str(message))}")
        else:
            usual(message, category, *place, **more)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _report(error: BaseException, *, debug: bool, owns_process: bool) -> int:
    code = exit_codes.code_of(error)
    if debug:
        terminal.note("".join(traceback.format_exception(error)).rstrip())
    if code == exit_codes.PIPE_CLOSED:
        _close_stdout()
    else:
        terminal.note(f"rlm: {exit_codes.explain(error)}")
        _show_partial_answer(error)
    if code == exit_codes.STOPPED and owns_process:
        _end_soon()
    return code


def _show_partial_answer(error: BaseException) -> None:
    if partial := getattr(error, "partial_answer", None):
        terminal.note(f"rlm: the best answer so far: {partial}")


def _close_stdout() -> None:
    """Without this the interpreter would complain about the closed pipe once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_soon() -> None:
    """A thread that is stuck in a connection must not keep the process, and its user, waiting."""
    timer = threading.Timer(_LAST_SECONDS, os._exit, (exit_codes.STOPPED,))
    timer.daemon = True
    timer.start()
