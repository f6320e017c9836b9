"""The command line `rlm`.

The result of a command goes to stdout and everything else to stderr. An error is one line on stderr; the exit code
says of which kind it is, see `rlm_kernel.cli.exit_codes.TABLE`.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import inspect
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
    acp,
    attach,
    batch,
    chat,
    demo,
    diff,
    doctor,
    exit_codes,
    export,
    gateway,
    install_kernel,
    replay,
    resume,
    run,
    runs,
    show,
    trust_command,
    view,
)
from rlm_kernel.text import one_line, suggestion

_LAST_SECONDS = 0.4
_OPTION = re.compile(r"--[\w-]+")
_stopped = threading.Event()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        argv: the arguments; None: those of the process. Only then Ctrl-C may end the process without cleaning up.
    """
    if argv is None:
        atexit.register(_skip_teardown)  # first, so that it is called last
    args, unknown = parser().parse_known_args(argv)
    if unknown:
        options = _OPTION.findall(args.parser.format_usage())
        meant = suggestion(unknown[0].partition("=")[0], options, "", cutoff=0.7)
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
    try:
        with _warnings_in_a_line():
            code: int = args.command(args)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (every error is reported here)
        return _report(error, debug=args.debug, owns_process=argv is None)
    return code


class _Parser(argparse.ArgumentParser):
    """A parser whose messages are safe to show: an argument may hold control sequences, such as a file's name."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            terminal.PlainStream(file or sys.stderr).write(message)


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    top = _Parser(
        prog="rlm",
        description="Recursive Language Models whose REPL is a real Jupyter kernel.",
        epilog=exit_codes.describe_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"rlm-kernel {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (
        run,
        chat,
        batch,
        demo,
        replay,
        resume,
        show,
        runs,
        view,
        diff,
        export,
        trust_command,
        attach,
        gateway,
        acp,
        install_kernel,
        doctor,
    ):
        help_ = inspect.cleandoc(module.__doc__ or "")
        summary = help_.partition(".\n")[0]
        command = commands.add_parser(
            module.NAME,
            help=summary[:1].lower() + summary[1:],
            description=help_,
            epilog=exit_codes.describe_table(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.add_argument("--debug", action="store_true", help="on an error, show the traceback")
        command.set_defaults(command=module.execute, parser=command)
    return top


@contextlib.contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Show warnings of the library in one line, without the place in our code; others as Python does."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, UserWarning | RuntimeWarning):
            terminal.print_note(f"rlm: {one_line(str(message))}")
        else:
            usual(message, category, *place, **more)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _report(error: BaseException, *, debug: bool, owns_process: bool) -> int:
    code = exit_codes.code_of(error)
    if debug:
        terminal.print_note("".join(traceback.format_exception(error)).rstrip())
    if code == exit_codes.PIPE_CLOSED:
        _close_stdout()
    else:
        terminal.print_note(f"rlm: {exit_codes.explain(error)}")
        if partial := getattr(error, "partial_answer", None):
            terminal.print_note(f"rlm: best answer so far: {partial}")
    if code == exit_codes.STOPPED and owns_process:
        _end_soon()
    return code


def _close_stdout() -> None:
    """Replace stdout: at exit the interpreter would otherwise report the closed pipe again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_soon() -> None:
    """End the process even if a thread is stuck in a connection."""
    _stopped.set()
    timer = threading.Timer(_LAST_SECONDS, os._exit, (exit_codes.STOPPED,))
    timer.daemon = True
    timer.start()


def _skip_teardown() -> None:
    """After Ctrl-C, end without freeing every object, which takes the interpreter up to two seconds."""
    if _stopped.is_set():
        with contextlib.suppress(OSError, ValueError):  # closed
            sys.stdout.flush()
        os._exit(exit_codes.STOPPED)
