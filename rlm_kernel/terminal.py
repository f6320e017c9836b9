"""The one place through which the library writes to a terminal.

What is written may hold foreign text: the name of a file, an error of a provider, the value of a variable. A terminal
would obey what such a text says to it, so each function here passes it through `plain`. What draws with Rich has
`PlainConsole` for that, and errors of ours do it in their `str()`.
"""

from __future__ import annotations

import re
import sys
from typing import TextIO

from rlm_kernel.text import plain

_COLOUR = re.compile(r"(\x1b\[[0-9;]*+m)")


def result(text: str) -> None:
    """Write to stdout what was asked for, and a newline: text only on a terminal, and in a pipe each byte as it is.

    A script reads it there, and a path or an answer may hold bytes that are no UTF-8.
    """
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None or sys.stdout.isatty():
        say(text)
        return
    encoding = sys.stdout.encoding
    try:
        data = text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode(encoding, "backslashreplace")
    sys.stdout.flush()
    buffer.write(data + b"\n")
    buffer.flush()


def say(text: str) -> None:
    """Write text to stdout, and a newline."""
    print(plain(text), flush=True)


def note(text: str) -> None:
    """Write to stderr what a person should know, and a newline."""
    print(plain(text), file=sys.stderr, flush=True)


def ask(prompt: str) -> str:
    """A line from stdin; the prompt is shown on a terminal only.

    Raises:
        EOFError: there are no more.
    """
    return input(plain(prompt) if sys.stdin.isatty() else "")


def confirm(question: str) -> bool:
    """Ask a yes-or-no question on stderr. Anything but "y" or "yes" is a no."""
    print(f"rlm: {plain(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class PlainStream:
    """Where another library may write: everything passes through `plain`, except for colours."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        parts = _COLOUR.split(text)
        parts[::2] = map(plain, parts[::2])
        return self._stream.write("".join(parts))

    def flush(self) -> None:
        """Let go of what is buffered."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._stream.isatty()
