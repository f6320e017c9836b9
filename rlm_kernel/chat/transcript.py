"""A conversation as Markdown, for `/save`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from rlm_kernel.chat.conversation import Turn
from rlm_kernel.errors import ConfigError
from rlm_kernel.text import plain
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.log.atomic_files import write_whole

_FENCES = re.compile(r"`{3,}")


def markdown(turns: Iterable[Turn], model: str) -> str:
    """The messages and answers, with the code that the newest turns ran."""
    when = f"{datetime.now().astimezone():%Y-%m-%d %H:%M}"
    parts = [f"# A conversation with {plain(model) or 'a model'}, {when}"]
    for turn in turns:
        parts += [f"## You\n\n{turn.message}", f"## Answer\n\n{turn.answer}".rstrip()]
        parts += [f"*{turn.error}*"] * bool(turn.error)
        parts += _run(turn)
    return plain("\n\n".join(parts)) + "\n"


def _run(turn: Turn) -> Iterator[str]:
    cells = [event for event in turn.run if isinstance(event, events.CellStarted)]
    if cells:
        yield f"<details><summary>{turn.facts}</summary>"
        yield from (_fenced(cell.code) for cell in cells)
        yield "</details>"


def _fenced(code: str) -> str:
    """A code block whose fence is longer than any in the code."""
    fence = "`" * max(3, 1 + max(map(len, _FENCES.findall(code)), default=0))
    return f"{fence}python\n{code}\n{fence}"


def save(turns: Iterable[Turn], model: str, path: Path, *, replace: bool) -> None:
    """Write the transcript. `replace`: whether the file may exist.

    Raises:
        ConfigError: the file exists, or cannot be written.
    """
    if path.exists() and not replace:
        raise ConfigError(f"{path} exists: name another file, /save FILE.")
    try:
        write_whole(path, markdown(turns, model).encode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}.") from error
