"""`rlm attach`: look into the live REPL of a run."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rlm_kernel import attachable, terminal
from rlm_kernel.cli import exits
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rlm_kernel.onlooker import Onlooker

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
        terminal.result(str(attachable.folder()))
    elif args.list:
        for repl in attachable.live():
            terminal.result(f"{repl.name}\t{repl.environment}\t{repl.started}")
    elif args.jupyter:
        _take_part(attachable.find(args.run))
    else:
        _look(args)
    return exits.OK


def _evaluate(args: Namespace) -> int:
    """Print the values; an error goes to stderr, and the exit code says that there was one."""
    from rlm_kernel.onlooker import Onlooker

    code = exits.OK
    with Onlooker(attachable.find(args.run).file) as onlooker:
        for expression in args.expression:
            has_value, text = onlooker.evaluate(expression)
            (terminal.say if has_value else terminal.note)(text)
            code = code if has_value else exits.FAILED
    return code


def _look(args: Namespace) -> None:
    from rlm_kernel.onlooker import Onlooker

    repl = attachable.find(args.run)
    with Onlooker(repl.file) as onlooker:
        terminal.note(f"rlm: {repl.name}, {repl.environment}. {_HINT}")
        _converse(onlooker, repl.name)


def _converse(onlooker: Onlooker, name: str) -> None:
    """Read expressions until there are no more."""
    if sys.stdin.isatty() and find_spec("readline"):
        import readline  # noqa: F401 (input() has a history then)
    while True:
        try:
            expression = terminal.ask(f"{name}> ").strip()
        except EOFError:
            return
        if expression:
            terminal.say(onlooker.variables() if expression == "vars" else onlooker.read(expression))


def _take_part(repl: attachable.LiveRepl) -> None:
    if find_spec("jupyter_console") is None:
        raise ConfigError("--jupyter needs jupyter-console: pip install jupyter-console")
    command = [sys.executable, "-m", "jupyter_console", "--existing", str(repl.file)]
    os.execv(command[0], command)  # noqa: S606 (our own interpreter)
