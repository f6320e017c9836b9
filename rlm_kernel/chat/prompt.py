"""The line in which a person types: keys, completion, history."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style

from rlm_kernel.chat.commands import COMMANDS, command_of
from rlm_kernel.chat.history import open_history
from rlm_kernel.text import plain

_TAKES_PATH = ("context", "save")
LEAVE = "Ctrl-D or /exit leaves."
_STYLE = Style.from_dict({"bottom-toolbar": "noreverse dim", "mark": "bold ansicyan", "more": "ansicyan"})


def make_prompt(show_run: Callable[[], None], toolbar: Callable[[], str]) -> PromptSession[str]:
    """The prompt of a chat.

    Args:
        show_run: called with Ctrl-O, while the prompt is hidden.
        toolbar: the line at the bottom.
    """
    return PromptSession(
        message=[("class:mark", "> ")],
        history=open_history(),
        completer=CommandCompleter(),
        complete_while_typing=Condition(lambda: False),
        key_bindings=_keys(show_run),
        multiline=True,
        prompt_continuation=_continuation,
        bottom_toolbar=lambda: _toolbar(toolbar()),
        style=_STYLE,
        enable_open_in_editor=False,
        reserve_space_for_menu=4,
    )


def _toolbar(text: str) -> StyleAndTextTuples:
    return [("", plain(text))]


def _continuation(width: int, _number: int, _is_soft: int) -> StyleAndTextTuples:
    return [("class:more", "· ".rjust(width))]


def _keys(show_run: Callable[[], None]) -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-o")
    def _(_event: KeyPressEvent) -> None:
        run_in_terminal(show_run)

    @keys.add("c-c")
    @keys.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return keys


class CommandCompleter(Completer):
    """Completes the commands, and the paths of those that take one."""

    def __init__(self) -> None:
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """The ways in which a line may go on."""
        line = document.text_before_cursor
        found = command_of(line) if line.startswith("/") else None
        if found is None:
            return
        name, _ = found
        if " " not in line:
            for command in COMMANDS:
                if command.name.startswith(name):
                    yield Completion(f"/{command.name}", -len(line), display_meta=command.help)
        elif name in _TAKES_PATH:
            path = line.partition(" ")[2].lstrip()
            for one in self._paths.get_completions(Document(path, len(path)), complete_event):
                if plain(one.text) == one.text:  # the name of a file is foreign
                    yield one
