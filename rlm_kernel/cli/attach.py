r"""Inspect the live REPL of a run.

Expressions are evaluated while the model works. This does not change the run: no cell is counted,
nothing is stored, and the command does not wait for a running cell.

A run can be inspected only if it was started with one of `rlm run --attachable`,
`%%rlm --attachable` and environment_kwargs={"attachable": True}. The reason: a client that can
inspect a kernel can also run code in it.

JupyterLab can list the same REPLs as external kernels. Cells that you run there, or with
--jupyter, are part of the run and change its variables:
  jupyter lab --ServerApp.allow_external_kernels=True \
              --ServerApp.external_connection_dir="$(rlm attach --folder)"
"""

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

_HINT = "Type an expression to see its value, `vars` to list the variables, Ctrl-D to leave. The run continues."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add("run", metavar="NAME", nargs="?", help="the REPL, or the beginning of its name (default: the only one)")
    add(
        "-e",
        "--expression",
        metavar="EXPR",
        action="append",
        default=[],
        help="print the value of EXPR and exit; can be repeated",
    )
    add("--list", action="store_true", help="list the live REPLs")
    add("--folder", action="store_true", help="print the folder of the connection files")
    add("--jupyter", action="store_true", help="open `jupyter console` on the kernel of the run")


def execute(args: Namespace) -> int:
    """Evaluate, list or open, as the options say.

    Raises:
        ConfigError: there is no such REPL.
        KernelError: it does not answer.
    """
    if args.expression and not (args.folder or args.list or args.jupyter):
        return _evaluate(args)
    if args.folder:
        terminal.print_result(str(connection_files.folder()))
    elif args.list:
        for repl in connection_files.list_live():
            terminal.print_result(f"{repl.name}\t{repl.environment}\t{repl.started}")
    elif args.jupyter:
        _open_console(connection_files.find_live(args.run))
    else:
        _inspect(args)
    return exit_codes.OK


def _evaluate(args: Namespace) -> int:
    """Print the values. An error goes to stderr, and the exit code is 1 then."""
    from rlm_kernel.kernel.inspector import KernelInspector

    code = exit_codes.OK
    with KernelInspector(connection_files.find_live(args.run).file) as inspector:
        for expression in args.expression:
            has_value, text = inspector.evaluate(expression)
            (terminal.print_line if has_value else terminal.print_note)(text)
            code = code if has_value else exit_codes.FAILED
    return code


def _inspect(args: Namespace) -> None:
    from rlm_kernel.kernel.inspector import KernelInspector

    repl = connection_files.find_live(args.run)
    with KernelInspector(repl.file) as inspector:
        terminal.print_note(f"rlm: {repl.name}, {repl.environment}. {_HINT}")
        _read_expressions(inspector, repl.name)


def _read_expressions(inspector: KernelInspector, name: str) -> None:
    """Read expressions from stdin until its end."""
    if sys.stdin.isatty() and find_spec("readline"):
        import readline  # noqa: F401 (input() has a history then)
    while True:
        try:
            expression = terminal.read_line(f"{name}> ").strip()
        except EOFError:
            return
        if expression:
            terminal.print_line(inspector.variables() if expression == "vars" else inspector.read(expression))


def _open_console(repl: connection_files.LiveRepl) -> None:
    if find_spec("jupyter_console") is None:
        raise ConfigError("--jupyter needs jupyter-console: pip install jupyter-console")
    command = [sys.executable, "-m", "jupyter_console", "--existing", str(repl.file)]
    os.execv(command[0], command)  # noqa: S606 (our own interpreter)
