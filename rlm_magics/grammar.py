"""The grammar of `%%rlm` and of the commands of `%rlm`. A mistake is a `UsageError`: one line that names the fix."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from IPython.core.error import UsageError

from rlm_kernel import inputs
from rlm_kernel.text import suggestion

COMMANDS = {
    "last": "show the result of the latest run again",
    "open": "link to the notebook and the log of the latest run, or of FILE",
    "trace": "show the latest run, or that of FILE, turn by turn",
    "usage": "what this session asked of models, and what it cost",
    "replay": "run the cells of the latest run, or of FILE, once more, without a key",
    "resume": "go on from the latest run, or from FILE",
    "model": "show or set the model: %rlm model gpt-5-mini --backend openai",
    "environments": "where the cells of models can run",
    "config": "show or set a default: %rlm config max_iterations 10; --save keeps all of them in a file",
    "attach": "list the live REPLs that can be looked into",
}
"""The commands of `%rlm`, and what each does."""


class Grammar(argparse.ArgumentParser):
    """A parser that neither prints nor exits. Options are written in full: a short form may mean another tomorrow."""

    def __init__(self, name: str, **about: Any) -> None:
        super().__init__(name, allow_abbrev=False, add_help=False, **about)

    def error(self, message: str) -> NoReturn:
        """Raise what IPython shows in one line.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{message} ({self.prog}? shows the options)")

    def read(self, line: str) -> argparse.Namespace:
        """The options of a line.

        Raises:
            UsageError: one of them is unknown, or has no value, or a wrong one.
        """
        args, unknown = self.parse_known_args(_words(line))
        if unknown:
            self.error(self._unknown(unknown[0]))
        return args

    def _unknown(self, word: str) -> str:
        if word.startswith("-"):
            meant = suggestion(word.partition("=")[0], self.options, "", cutoff=0.7)
            return f"unknown option {word!r}{meant}"
        return f"unknown word {word!r}: write the question in the cell, below this line"

    @property
    def options(self) -> tuple[str, ...]:
        """All options, for completion."""
        return tuple(self._option_string_actions)


def cell_grammar() -> Grammar:
    """The options of `%%rlm`."""
    grammar = Grammar("%%rlm", description="Answer the question in this cell with a Recursive Language Model.")
    add = grammar.add_argument
    add("-c", "--context", metavar="NAME", action="append", default=[], help="a variable to ask about; several: a dict")
    add("--file", metavar="PATH", action="append", default=[], help="a file or a folder to ask about")
    inputs.add_limit(add)
    add("-o", "--output", metavar="NAME", help="the variable that gets the result")
    add("--schema", metavar="NAME", help="a variable with a JSON Schema or a pydantic class that the answer has to fit")
    _add_run_options(grammar)
    return grammar


def command_grammar(command: str) -> Grammar:
    """The options of a command of `%rlm`."""
    grammar = Grammar(f"%rlm {command}", description=COMMANDS[command])
    add = grammar.add_argument
    if command in ("open", "trace", "replay", "resume"):
        add("file", metavar="FILE", nargs="?", help="a log or its notebook (default: the latest run)")
    if command in ("replay", "resume"):
        add("--trust", action="store_true", help="allow the record to use files and servers of this machine")
    if command == "replay":
        add("--live", action="store_true", help="ask models for answers that are not in the record")
        add("--environment", help="where the cells run (default: the recorded environment)")
    if command == "resume":
        add("--at", type=int, metavar="TURN", help="the last turn to keep (default: all)")
        add("--question", help="a new question from this turn on")
        add("-o", "--output", metavar="NAME", help="the variable that gets the result")
        _add_run_options(grammar)
    if command == "model":
        add("name", nargs="?", help="the model")
        add("-b", "--backend", help="the provider")
        add("--base-url", metavar="URL", help="the endpoint of the provider")
    if command == "config":
        add("name", nargs="?", help="a setting")
        add("value", nargs="*", help="its value")
        add("--save", action="store_true", help="save the settings in IPython's configuration")
    return grammar


class Setting(NamedTuple):
    """What a `%rlm config` line asks for; `name` and `value` are empty where it does not say them."""

    name: str
    value: str
    save: bool


def setting_of(line: str) -> Setting:
    """Read a `%rlm config` line. The value is the rest of it, quotes and braces included.

    Raises:
        UsageError: an option is unknown.
    """
    words = line.split()
    if save := "--save" in words[-1:]:
        line = line.rstrip().removesuffix("--save")
    if words and words[0].startswith("-"):
        command_grammar("config").read(words[0])
    name, _, value = line.strip().partition(" ")
    return Setting(name, value.strip().removeprefix("= "), save)


def command_of(line: str) -> tuple[str, str]:
    """The command of a `%rlm` line, and what follows it; an empty line has none.

    Raises:
        UsageError: there is no such command.
    """
    command, _, rest = line.strip().partition(" ")
    if command and command not in COMMANDS:
        raise UsageError(
            f"%rlm has no command {command!r}{suggestion(command, COMMANDS)} "
            f"There are {', '.join(COMMANDS)}; write a question in a cell that begins with %%rlm."
        )
    return command, rest


def overview() -> str:
    """The commands, for `%rlm` alone."""
    width = max(map(len, COMMANDS))
    lines = [f"%rlm {name:{width}}  {help_}" for name, help_ in COMMANDS.items()]
    return "\n".join(["%%rlm asks the question in a cell; %%rlm? shows its options.", *lines])


def _add_run_options(grammar: Grammar) -> None:
    add = grammar.add_argument
    add("-b", "--backend", help="the provider of the model, or a variable with an LM")
    add("-m", "--model", help="the model")
    add("--base-url", metavar="URL", help="the provider's endpoint")
    add("--backend-kwarg", metavar="KEY=VALUE", action="append", default=[], help="more for the backend")
    add("--sub-backend", help="the provider of sub-calls, or a variable with an LM")
    add("--sub-model", help="the model of sub-calls")
    add("-e", "--environment", help="where the model's cells run")
    add("--environment-kwarg", metavar="KEY=VALUE", action="append", default=[], help="more for the environment")
    add("--attachable", action="store_true", help="let `rlm attach` and JupyterLab look into the live REPL")
    add("--max-iterations", type=int, metavar="N", help="turns of the root model")
    add("--max-depth", type=int, metavar="N", help="levels of RLMs that rlm_query may start")
    add("--max-budget", type=float, metavar="USD", help="what it may cost, in US dollars")
    add("--max-timeout", type=float, metavar="SECONDS", help="how long it may take")
    add("--max-tokens", type=int, metavar="N", help="tokens it may use")
    add("--max-errors", type=int, metavar="N", help="cells in a row that may raise")
    add("--prompts", choices=("large", "small"), help="the prompt profile (default: the backend's)")
    add("--persistent", action="store_true", default=None, help="keep the kernel for the next such cell")
    add("--log-dir", metavar="DIR", help="where logs and notebooks of runs are kept")
    view = grammar.add_mutually_exclusive_group()
    view.add_argument("--verbose", dest="view", action="store_const", const="verbose", help="show all turns unfolded")
    view.add_argument("--quiet", dest="view", action="store_const", const="quiet", help="show nothing but the answer")


def _words(line: str) -> Sequence[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{error} in {line!r}: quote what holds spaces or quotes.") from error
