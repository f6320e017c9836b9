"""Environment variables, each with its source: the process, or the `.env` file of a folder."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from stat import S_ISFIFO, S_ISREG

from rlm_kernel.clients.trust import Source, Sourced
from rlm_kernel.errors import ConfigError

MAX_FILE_BYTES = 1_000_000
"""What a `.env` file may hold, also with all references filled in."""

MAX_PIPE_SECONDS = 5.0
"""How long a pipe in its place is read. A password manager writes to it when it is opened."""


class Variables(dict[str, str]):
    """The variables of a process, and those of a `.env` file that the process does not have.

    Args:
        process: the variables of the process.
        dotenv: the variables of the file.
        path: the file.
    """

    def __init__(
        self, process: Mapping[str, str], dotenv: Mapping[str, str] | None = None, path: Path | None = None
    ) -> None:
        super().__init__({**(dotenv or {}), **process})
        self._process_names = frozenset(process)
        self._path = path

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Variables:
        """The same variables; a plain mapping counts as the user's environment."""
        return env if isinstance(env, cls) else cls(env)

    def find(self, name: str | None) -> Sourced[str] | None:
        """The variable of this name, without surrounding whitespace; None if it is missing or empty."""
        value = self.get(name or "", "").strip()
        if name is None or not value:
            return None
        if name in self._process_names:
            return Sourced(value, Source.ENVIRONMENT, name, "the environment")
        return Sourced(value, Source.DOTENV, name, str(self._path))

    def __repr__(self) -> str:
        return f"Variables({len(self)} of them, {self._path})"


def environment_variables(cwd: Path | None = None, *, pipes: bool = True) -> Variables:
    """The variables of the process and of the nearest `.env` file; the process takes precedence and is not changed.

    Args:
        cwd: the folder where the search for `.env` starts, upward; None is the working directory.
        pipes: whether a pipe is read, too: it can be read only once.

    Raises:
        ConfigError: the `.env` file cannot be read.
    """
    nearest = next((path for path in _possible_paths(cwd) if _holds_variables(path, pipes=pipes)), None)
    return Variables(os.environ, _read_dotenv(nearest) if nearest else {}, nearest)


def _possible_paths(cwd: Path | None) -> list[Path]:
    """Possible paths of a `.env` file, the nearest first."""
    try:
        start = (cwd or Path.cwd()).absolute()
    except FileNotFoundError:  # the working directory was removed
        return []
    return [folder / ".env" for folder in (start, *start.parents)]


def _holds_variables(path: Path, *, pipes: bool) -> bool:
    """Whether it is a file, or a pipe of a password manager. A folder with this name is a virtual environment."""
    try:
        mode = path.stat().st_mode
    except OSError:  # missing, or in a folder without permission
        return False
    return S_ISREG(mode) or (pipes and S_ISFIFO(mode))


def _read_dotenv(path: Path) -> dict[str, str]:
    from dotenv import dotenv_values

    try:
        written = dotenv_values(stream=StringIO(_text(path)), interpolate=False)
        return _expanded({name: value for name, value in written.items() if value is not None})
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): repair or remove it.") from error


def _text(path: Path) -> str:
    """The text of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, or not UTF-8.
    """
    content = _content(path)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES:,} bytes")
    return content.decode()


def _content(path: Path) -> bytes:
    """The bytes of a file, or of a pipe to which somebody writes within `MAX_PIPE_SECONDS`; at most one too many.

    Raises:
        OSError: it cannot be read.
        TimeoutError: nobody writes to the pipe, or its writer does not come to an end.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not S_ISFIFO(os.fstat(descriptor).st_mode):
            return file.read(MAX_FILE_BYTES + 1)
        content, deadline = b"", time.monotonic() + MAX_PIPE_SECONDS
        while len(content) <= MAX_FILE_BYTES:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(1_000 * max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"it is a pipe, and its end did not come within {MAX_PIPE_SECONDS:.0f} s")
            if not (piece := file.read(MAX_FILE_BYTES)):
                break
            content += piece
        return content


def _expanded(written: Mapping[str, str]) -> dict[str, str]:
    """The values with ``${NAME}`` filled in, from the file alone: else it could write a key into a URL of its own.

    Raises:
        ValueError: they become larger than a file may be.
    """
    known: dict[str, str] = {}
    room = MAX_FILE_BYTES
    for name, value in written.items():
        known[name] = "".join(filled_in(value, known, room))
        room -= len(known[name])
    return known


def filled_in(value: str, known: Mapping[str, str], room: int) -> Iterator[str]:
    """The pieces of a value, in linear time: python-dotenv's own pattern is quadratic on references without an end.

    Raises:
        ValueError: they have more than `room` characters.
    """
    done = at = 0
    end = colon = -1
    while (at := value.find("${", at)) >= 0:
        end = value.find("}", at) if end < at else end
        if end < 0:
            break
        colon = value.find(":", at) % (len(value) + 1) if colon < at else colon
        if colon < end and value[colon : colon + 2] != ":-":
            at += 2
            continue
        found = known.get(value[at + 2 : min(colon, end)], value[colon + 2 : end] if colon < end else "")
        room -= at - done + len(found)
        if room < 0:
            raise ValueError(f"its values become larger than {MAX_FILE_BYTES:,} characters")
        yield from (value[done:at], found)
        done = at = end + 1
    yield value[done:]
