"""The options of `%%rlm` and of the commands of `%rlm`. A mistake is a `UsageError`: one line that names the fix.

`IPython.core.magic_arguments` does not fit: it leaves quotes in values, accepts abbreviated options, and has neither
sub-commands nor exclusive options.
"""

from __future__ import annotations

import argparse
import keyword
import re
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from IPython.core.error import UsageError

from rlm_kernel import inputs
from rlm_kernel.text import suggestion

COMMANDS = {
    "last": "show the result of the latest run",
    "open": "link to the notebook and the log of the latest run, or of FILE",
    "trace": "show the turns of the latest run, or of FILE",
    "usage": "show the model calls of this session and their cost",
    "replay": "run the cells of the latest run, or of FILE, again, without an API key",
    "resume": "continue the latest run, or FILE",
    "fork": "take the latest run, or FILE, another way after a turn: %rlm fork 3",
    "cells": "put the cells that the latest answer, or that of FILE, needs into the cell below",
    "model": "show or set the model: %rlm model gpt-5-mini --backend openai",
    "environments": "list the environments where the cells of models can run",
    "config": "show or set a default: %rlm config max_iterations 10; --save writes all to a file",
    "attach": "list the live REPLs that `rlm attach` can inspect",
}
"""The commands of `%rlm`, and their help."""

_STRINGS_AND_BRACKETS = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*+"|[()\[\]{}]""")

_REPEATABLE: Any = {"action": "append", "default": []}


class Grammar(argparse.ArgumentParser):
    """A parser that neither prints nor exits. Options cannot be abbreviated: a new option could change the meaning."""

    def __init__(self, name: str, **about: Any) -> None:
        super().__init__(name, allow_abbrev=False, add_help=False, **about)

    def error(self, message: str) -> NoReturn:
        """Raise what IPython shows in one line.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{message} ({self.prog}? lists the options)")

    def read(self, line: str) -> argparse.Namespace:
        """The options of a line.

        Raises:
            UsageError: an option is unknown, or its value is missing or wrong.
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

    @property
    def takes_file(self) -> bool:
        """Whether the first word that is no option is a file."""
        return any(action.metavar == "FILE" for action in self._get_positional_actions())

    def takes_value(self, option: str) -> bool:
        """Whether a value follows an option."""
        return self._option_string_actions[option].nargs != 0


def cell_grammar() -> Grammar:
    """The options of `%%rlm`."""
    grammar = Grammar("%%rlm", description="Answer the question in this cell with a Recursive Language Model.")
    add = grammar.add_argument
    about = "a variable or an expression to ask about, as text, df.notes or name=df.notes; several become a dict"
    add("-c", "--context", metavar="VALUE", **_REPEATABLE, help=about)
    add("--file", metavar="PATH", **_REPEATABLE, help="a file or a folder to ask about")
    inputs.add_limit(add)
    add("-o", "--output", metavar="NAME", type=_variable_name, help="the variable that gets the result")
    add("--follow", action="store_true", help="ask about the latest run: in its kernel, with its input and options")
    add("--confirm", action="store_true", help="ask before each cell and each call of a model or tool")
    add("--schema", metavar="NAME", help="a variable that holds a JSON Schema or a pydantic class for the answer")
    add(
        "--mcp",
        metavar="SERVER",
        **_REPEATABLE,
        help="an MCP server: a configuration file, a URL or a command in quotes",
    )
    add("--yes", action="store_true", help="let the tools of MCP servers change things without a question")
    _add_run_options(grammar)
    return grammar


_SWITCHES = {
    "replay": ("--live", "ask models for answers that are not in the record"),
    "cells": ("--data", "give them to our JupyterLab extension, which inserts them one by one"),
}


def command_grammar(command: str) -> Grammar:
    """The options of a command of `%rlm`."""
    grammar = Grammar(f"%rlm {command}", description=COMMANDS[command])
    add = grammar.add_argument
    if command == "fork":
        add("at", type=int, metavar="TURN", help="the last turn to keep")
    if command in ("open", "trace", "replay", "resume", "fork", "cells"):
        add("file", metavar="FILE", nargs="?", help="a log or its notebook (default: the latest run)")
    if command in ("replay", "resume", "fork", "cells"):
        add("--trust", action="store_true", help="allow the record to use files and servers of this machine")
    if command in _SWITCHES:
        name, text = _SWITCHES[command]
        add(name, action="store_true", help=text)
    if command in ("replay", "cells"):
        add("--environment", help="where the cells run (default: the recorded environment)")
    if command == "resume":
        add("--at", type=int, metavar="TURN", help="the last turn to keep (default: all, or up to your last edit)")
    if command in ("resume", "fork"):
        add("--question", help="a new question from this turn on")
        add("-o", "--output", metavar="NAME", type=_variable_name, help="the variable that gets the result")
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
    """A parsed `%rlm config` line; `name` and `value` are empty if they are not given."""

    name: str
    value: str
    save: bool


def setting_of(line: str) -> Setting:
    """Parse a `%rlm config` line. The value is the rest of the line, quotes and braces included.

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


def command_of(line: str) -> tuple[str, argparse.Namespace | Setting]:
    """The command of a `%rlm` line and its options; the command of an empty line is empty.

    Raises:
        UsageError: there is no such command or option.
    """
    command, _, rest = line.strip().partition(" ")
    if command and command not in COMMANDS:
        raise UsageError(
            f"%rlm has no command {command!r}{suggestion(command, COMMANDS)} "
            f"There are {', '.join(COMMANDS)}; write a question in a cell that begins with %%rlm."
        )
    if not command:
        return "", argparse.Namespace()
    return command, setting_of(rest) if command == "config" else command_grammar(command).read(rest)


def overview() -> str:
    """The help that `%rlm` alone shows."""
    width = max(map(len, COMMANDS))
    lines = [f"%rlm {name:{width}}  {help_}" for name, help_ in COMMANDS.items()]
    return "\n".join(["%%rlm answers the question in its cell; %%rlm? shows its options.", *lines])


def _add_run_options(grammar: Grammar) -> None:
    add = grammar.add_argument
    add("-b", "--backend", help="the provider of the model, or a variable that holds an LM")
    add("-m", "--model", help="the model")
    add("--base-url", metavar="URL", help="the endpoint of the provider")
    add("--backend-kwarg", metavar="KEY=VALUE", **_REPEATABLE, help="another argument of the backend")
    add("--sub-backend", help="the provider for sub-calls, or a variable that holds an LM")
    add("--sub-model", help="the model for sub-calls")
    add("-e", "--environment", help="where the cells of the model run")
    add("--environment-kwarg", metavar="KEY=VALUE", **_REPEATABLE, help="an option of the environment")
    add("--attachable", action="store_true", help="let `rlm attach` and JupyterLab connect to the REPL")
    add("--max-iterations", type=int, metavar="N", help="maximum turns of the root model")
    add("--max-depth", type=int, metavar="N", help="maximum depth of RLMs that rlm_query starts")
    add("--max-budget", type=float, metavar="USD", help="maximum cost in US dollars")
    add("--max-timeout", type=float, metavar="SECONDS", help="maximum time in seconds")
    add("--max-tokens", type=int, metavar="N", help="maximum tokens, input and output together")
    add("--max-errors", type=int, metavar="N", help="maximum of consecutive cells that raise")
    add("--max-calls", type=int, metavar="N", help="maximum prompts of sub-calls")
    add("--prompts", choices=("large", "small"), help="the prompt profile (default: chosen by the backend)")
    keep = "keep the kernel for the next cell with the same options"
    add("--persistent", action="store_true", default=None, help=keep)
    add("--log-dir", metavar="DIR", help="folder for logs and notebooks of runs")
    view = grammar.add_mutually_exclusive_group()
    view.add_argument("--verbose", dest="view", action="store_const", const="verbose", help="show all turns unfolded")
    view.add_argument("--quiet", dest="view", action="store_const", const="quiet", help="show only the answer")


_TAKEN = frozenset(
    {
        "__builtins__",
        "get_ipython",
        "exit",
        "quit",
        "In",
        "Out",
        "llm_query",
        "rlm_query",
        "llm_query_batched",
        "rlm_query_batched",
    }
)
"""Names without which a notebook, or what it asks models with, stops working."""


def _variable_name(text: str) -> str:
    """The name of a variable, checked before a model is asked."""
    if not text.isidentifier() or keyword.iskeyword(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a variable: give one such as answer")
    if text in _TAKEN:
        raise argparse.ArgumentTypeError(f"{text} has a meaning in a notebook: give another name, such as answer")
    return text


def _words(line: str) -> Sequence[str]:
    try:
        return shlex.split(_with_quoted_brackets(line))
    except ValueError as error:
        raise UsageError(f"{error} in {line!r}: put values with spaces or quotes in quotes.") from error


def _with_quoted_brackets(line: str) -> str:
    """The line with what stands in brackets quoted, so that ``-c df['notes']`` and ``-c {'a': a}`` stay as they are."""
    kept, depth, begin, end = [], 0, 0, 0
    for found in _STRINGS_AND_BRACKETS.finditer(line):
        if found[0] in "([{":
            begin = begin if depth else found.start()
            depth += 1
        elif found[0] in ")]}" and depth:
            depth -= 1
            if not depth:
                kept += [line[end:begin], shlex.quote(line[begin : found.end()])]
                end = found.end()
    return "".join([*kept, line[end:]])
