"""`rlm attach`: inspect the live REPL of a run, or take part in it."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rlm_kernel import terminal
from rlm_kernel.cli import exit_codes
from rlm_kernel.errors import ConfigError
from rlm_kernel.kernel import connection_files

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rlm_kernel.kernel.inspector import KernelInspector

NAME = "attach"
HELP = "look into the live REPL of a run"
DESCRIPTION = """\
Look into the live REPL of a run: read expressions while the model works. Looking disturbs nothing: no cell is
counted, nothing is kept, and a running cell is not waited for.

A run lets others look in only when it is asked to, because whoever can look in can also run code:
`rlm run --attachable`, `%%rlm --attachable`, or environment_kwargs={"attachable": True}.

JupyterLab lists the same REPLs as external kernels; what is run there, or with --jupyter, takes part in the run:
  jupyter lab --ServerApp.allow_external_kernels=True \\
              --ServerApp.external_connection_dir="$(rlm attach --folder)"
"""

_HINT = "Expressions are evaluated beside the run. vars: the variables; Ctrl-D: leave, the run goes on."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add("run", metavar="NAME", nargs="?", help="which REPL, or how its name begins (default: the only one)")
    add("-e", "--expression", metavar="EXPR", action="append", default=[], help="print its value, and leave")
    add("--list", action="store_true", help="list the live REPLs")
    add("--folder", action="store_true", help="print the folder of their connection files")
    add("--jupyter", action="store_true", help="open `jupyter console`, which takes part in the run")


def execute(args: Namespace) -> int:
    """Look in.

    Raises:
        ConfigError: there is no such REPL.
        KernelError: it does not answer.
    """
    if args.expression and not (args.folder or args.list or args.jupyter):
        return _evaluate(args)
    if args.folder:
        terminal.result(str(connection_files.folder()))
    elif args.list:
        for repl in connection_files.list_live():
            terminal.result(f"{repl.name}\t{repl.environment}\t{repl.started}")
    elif args.jupyter:
        _take_part(connection_files.find_live(args.run))
    else:
        _look(args)
    return exit_codes.OK


def _evaluate(args: Namespace) -> int:
    """Print the values; an error goes to stderr, and the exit code says that there was one."""
    from rlm_kernel.kernel.inspector import KernelInspector

    code = exit_codes.OK
    with KernelInspector(connection_files.find_live(args.run).file) as inspector:
        for expression in args.expression:
            has_value, text = inspector.evaluate(expression)
            (terminal.say if has_value else terminal.note)(text)
            code = code if has_value else exit_codes.FAILED
    return code


def _look(args: Namespace) -> None:
    from rlm_kernel.kernel.inspector import KernelInspector

    repl = connection_files.find_live(args.run)
    with KernelInspector(repl.file) as inspector:
        terminal.note(f"rlm: {repl.name}, {repl.environment}. {_HINT}")
        _converse(inspector, repl.name)


def _converse(inspector: KernelInspector, name: str) -> None:
    """Read expressions until there are no more."""
    if sys.stdin.isatty() and find_spec("readline"):
        import readline  # noqa: F401 (input() has a history then)
    while True:
        try:
            expression = terminal.ask(f"{name}> ").strip()
        except EOFError:
            return
        if expression:
            terminal.say(inspector.variables() if expression == "vars" else inspector.read(expression))


def _take_part(repl: connection_files.LiveRepl) -> None:
    if find_spec("jupyter_console") is None:
        raise ConfigError("--jupyter needs jupyter-console: pip install jupyter-console")
    command = [sys.executable, "-m", "jupyter_console", "--existing", str(repl.file)]
    os.execv(command[0], command)  # noqa: S606 (our own interpreter)
