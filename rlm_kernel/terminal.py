"""Write to a terminal, and read from it.

A message may hold foreign text: the name of a file, an error of a provider, the value of a variable. A terminal would
obey control sequences in it, so each function here passes it through `plain`. Code that draws with Rich uses
`PlainConsole` for that, and the errors of this library do it in their `str()`.
"""

from __future__ import annotations

import re
import sys
from typing import TextIO

from rlm_kernel.text import plain

_COLOUR = re.compile(r"(\x1b\[[0-9;]*+m)")


def print_result(text: str) -> None:
    """Write the result of a command and a newline to stdout: on a terminal as `plain`, in a pipe with every byte kept.

    A script may read the pipe, and a path or an answer may hold bytes that are not UTF-8.
    """
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None or sys.stdout.isatty():
        print_line(text)
        return
    encoding = sys.stdout.encoding
    try:
        data = text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode(encoding, "backslashreplace")
    sys.stdout.flush()
    buffer.write(data + b"\n")
    buffer.flush()


def print_line(text: str) -> None:
    """Write a text and a newline to stdout."""
    print(plain(text), flush=True)


def print_note(text: str) -> None:
    """Write a message and a newline to stderr."""
    print(plain(text), file=sys.stderr, flush=True)


def read_line(prompt: str) -> str:
    """Read a line from stdin. The prompt is shown on a terminal only.

    Raises:
        EOFError: stdin has ended.
    """
    return input(plain(prompt) if sys.stdin.isatty() else "")


def ask(question: str) -> str:
    """Ask a question on stderr. Returns the line that is typed, empty when stdin has ended."""
    print(plain(question), end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().rstrip("\n")


def confirm(question: str) -> bool:
    """Ask a yes-or-no question on stderr. Anything but "y" or "yes" is a no."""
    print(f"rlm: {plain(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class PlainStream:
    """A stream for other libraries: text passes through `plain`, colours are kept."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        parts = _COLOUR.split(text)
        parts[::2] = map(plain, parts[::2])
        return self._stream.write("".join(parts))

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._stream.isatty()
