"""The commands of a chat: lines that begin with a slash."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rlm_kernel.chat import transcript
from rlm_kernel.chat.conversation import Conversation, Turn
from rlm_kernel.errors import ConfigError, RLMError
from rlm_kernel.text import clip, one_line, plain, suggestion
from rlm_kernel.trajectory.console import render

_COMMAND = re.compile(r"\A/(?P<name>[A-Za-z?]*+)(?:\s++(?P<rest>.*))?\Z", re.DOTALL)
_MAX_LISTED = 30
_MAX_ABOUT = 4_000
"""Characters about a tool; a server has many functions."""


class Command(NamedTuple):
    """A row of the help."""

    name: str
    argument: str
    help: str


COMMANDS = (
    Command("context", "[PATH]", "list the context; add a file or a folder, or read it again"),
    Command("tools", "", "list the tools"),
    Command("model", "[NAME]", "name the model; ask another one from now on"),
    Command("cost", "", "tokens and cost of the chat"),
    Command("unfold", "[on|off]", "show the run of the last answer; on: of each from now on"),
    Command("save", "[FILE]", "write the conversation as Markdown"),
    Command("notebook", "", "where the notebook of the conversation is"),
    Command("help", "", "this list"),
    Command("exit", "", "leave (also Ctrl-D)"),
)
KEYS = (
    ("Enter", "send"),
    ("Alt-Enter, Ctrl-J, \\ Enter", "a new line"),
    ("Up, Down, Ctrl-R", "earlier messages"),
    ("Ctrl-O", "show the run; during an answer: unfold it, and fold it again"),
    ("Ctrl-C", "stop the answer, or clear the line"),
    ("Ctrl-D", "leave"),
)
_SAME = {"quit": "exit", "q": "exit", "?": "help", "h": "help", "": "help"}


def command_of(line: str) -> tuple[str, str] | None:
    """The name and the argument of a command; None: the line is a message. A path such as `/etc/hosts` is no name."""
    found = _COMMAND.match(line.strip())
    return None if found is None else (found["name"].lower(), (found["rest"] or "").strip())


@dataclass(slots=True)
class Commands:
    """Runs commands.

    Args:
        conversation: the chat.
        show: draws a result.
        show_run: draws the run of a turn.

    Attributes:
        unfolded: whether runs are shown as they go on.
        over: whether the chat is over.
    """

    conversation: Conversation
    show: Callable[[RenderableType], object]
    show_run: Callable[[Turn], object]
    unfolded: bool = False
    over: bool = False
    _saved: Path | None = None

    def run(self, name: str, argument: str) -> None:
        """Run a command.

        Raises:
            ConfigError: there is no such command, or its argument is wrong.
        """
        name = _SAME.get(name, name)
        known = [command.name for command in COMMANDS]
        if name not in known:
            raise ConfigError(f"Unknown command /{name}{suggestion(name, known)} /help lists all.")
        getattr(self, f"_{name}")(argument)

    def _help(self, _: str) -> None:
        grid = _grid()
        for command in COMMANDS:
            grid.add_row(f"/{command.name} {command.argument}".rstrip(), command.help)
        for key, what in KEYS:
            grid.add_row(key, what)
        self.show(grid)

    def _exit(self, _: str) -> None:
        self.over = True

    def _context(self, path: str) -> None:
        chat = self.conversation
        if path:
            count = chat.add_path(path, "/context")
            self._say(f"{plain(path)}: {count:,} text{'s' * (count != 1)} in the context, from the next message on.")
            return
        sizes = {key: len(value) if isinstance(value, str) else None for key, value in chat.context.items()}
        if not sizes:
            self._say("The context is empty: /context PATH adds a file or a folder.")
            return
        grid = _grid()
        for key, size in list(sizes.items())[:_MAX_LISTED]:
            grid.add_row(one_line(key), "data" if size is None else f"{size:,} characters")
        total = f"{len(sizes):,} keys, {sum(filter(None, sizes.values())):,} characters"
        more = f" (the first {_MAX_LISTED})" if len(sizes) > _MAX_LISTED else ""
        self.show(Group(grid, Text(total + more, style="dim")))

    def _tools(self, _: str) -> None:
        tools = [tool for tool in self.conversation.open().tools if tool.kind == "function"]
        if not tools:
            self._say("There are no tools besides those of every REPL: llm_query, rlm_query, search_context, …")
            return
        grid = _grid()
        for tool in tools:
            grid.add_row(one_line(tool.name), plain(clip(tool.about or tool.description, _MAX_ABOUT)))
        self.show(grid)

    def _model(self, name: str) -> None:
        chat = self.conversation
        if name:
            chat.use_model(name)
            self._say(f"{plain(name)} answers from the next message on.")
        else:
            self._say(f"{plain(chat.open().model)}. /model NAME asks another one.")

    def _cost(self, _: str) -> None:
        usage = self.conversation.usage
        if usage.model_usage_summaries:
            self.show(render.usage(usage))
        else:
            self._say("Nothing was asked so far.")
        for line in self.conversation.limits:
            self._say(line)

    def _unfold(self, argument: str) -> None:
        if argument in ("on", "off"):
            self.unfolded = argument == "on"
            self._say("Each run is shown as it goes on." if self.unfolded else "Each run is one line.")
            return
        if argument:
            raise ConfigError("/unfold shows the last run; /unfold on and /unfold off are for those to come.")
        last = next((turn for turn in reversed(self.conversation.turns) if turn.run), None)
        if last is None:
            self._say("No run of this session to show; the notebook has all of them.")
        else:
            self.show_run(last)

    def _save(self, argument: str) -> None:
        chat = self.conversation
        if not chat.turns:
            raise ConfigError("There is nothing to save: the conversation has no message.")
        usual = self._saved or Path(f"chat-{datetime.now().astimezone():%Y%m%d-%H%M%S}.md")
        path = Path(argument).expanduser() if argument else usual
        transcript.save(chat.turns, chat.model, path, replace=path == self._saved)
        self._saved = path
        self._say(f"Written to {plain(str(path))}")

    def _notebook(self, _: str) -> None:
        path = self.conversation.notebook
        if path is None:
            self._say("There is none so far: it begins with the first answer, unless --no-log is given.")
            return
        written = "" if path.is_file() else " (in a second)"
        self._say(f"{plain(os.path.relpath(path))}{written}")

    def _say(self, text: str) -> None:
        self.show(Text(text))


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="cyan", overflow="fold")
    grid.add_column(overflow="fold")
    return grid


def explain(error: BaseException) -> str:
    """An error of a turn in one line."""
    message = one_line(str(error)) or type(error).__name__
    return message if isinstance(error, RLMError | OSError) else f"{type(error).__name__}: {message}"
