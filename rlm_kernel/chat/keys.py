"""The keys that are pressed while a turn goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prompt_toolkit.input import create_input
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys


class TypedAhead:
    """What was typed while nobody asked; the next prompt begins with it."""

    def __init__(self) -> None:
        self._text = ""

    def take(self) -> str:
        """The text, once."""
        text, self._text = self._text, ""
        return text.rstrip("\n")  # sent by the person, who reads the answer first

    def add(self, press: KeyPress) -> None:
        """Add a key."""
        if press.key in (Keys.Backspace, Keys.ControlH):
            self._text = self._text[:-1]
        elif press.key == Keys.BracketedPaste:
            self._text += press.data.replace("\r\n", "\n").replace("\r", "\n")
        elif press.key in (Keys.Enter, Keys.ControlM, Keys.ControlJ):
            self._text += "\n" if self._text else ""
        elif len(press.key) == 1 and press.key.isprintable():
            self._text += press.key


@contextmanager
def keys_to(take: Callable[[KeyPress], None]) -> Iterator[None]:
    """Call `take` with each key that is pressed. Needs a running loop of asyncio.

    The terminal sends no signals meanwhile: Ctrl-C is a key.
    """
    terminal = create_input()

    def read() -> None:
        for press in terminal.read_keys():
            take(press)

    with terminal.raw_mode(), terminal.attach(read):
        yield
