"""Where `--context` comes from: a file, a folder or stdin, as text."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from rlm_kernel import terminal
from rlm_kernel.errors import ConfigError

LEFT_OUT = frozenset({"node_modules", "venv", "__pycache__"})
"""Folders that hold what others wrote or what can be made again. Hidden ones (.git, .venv) are left out, too."""

_LISTED = 5


class Folder(NamedTuple):
    """The texts of a folder by relative path, and what else it holds.

    Attributes:
        texts: by path.
        binary: how many files are no text.
        unreadable: how many cannot be read.
        left_out: hidden files and folders and those of `LEFT_OUT`, as paths; a folder ends with a slash.
    """

    texts: dict[str, str]
    binary: int
    unreadable: int
    left_out: tuple[str, ...]


class Once(argparse.Action):
    """An option that may be given once: the last one would win in silence."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 (argparse hands it over)
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Keep the value, if it is the first."""
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "it was given twice; a folder holds several files")
        setattr(namespace, self.dest, values)


def read(source: str, option: str = "--context") -> str | dict[str, str]:
    """The text of a file, the texts of a folder by relative path, or with ``"-"`` what stdin holds.

    Bytes that are no UTF-8 become lone surrogates, so that nothing is lost. What a folder holds beside text is
    skipped, and so are hidden files (a `.env` holds keys) and `LEFT_OUT`; stderr says what that was. `option`: what the
    user gave it with, for messages.

    Raises:
        ConfigError: no name is given, there is nothing of that name, it cannot be read, or it is empty or not text.
    """
    if source == "-":
        return _text(_stdin(), f"{option} stdin")
    if not source:  # as a path it would mean the working folder
        raise ConfigError(f"{option} is empty: name a file or a folder.")
    path = Path(source)
    if path.is_dir():
        return _folder(path, option)
    try:
        return _text(path.read_bytes(), f"{option} {source}")
    except OSError as error:
        raise ConfigError(f"{option} {source} cannot be read: {error.strerror}.") from error


def tell_of_unread_stdin() -> None:
    """Say on stderr that what was piped in is not read, if something was."""
    if _holds_something(sys.stdin):
        terminal.note("rlm: stdin is not read: --context - makes it the context")


def read_folder(path: Path) -> Folder:
    """The texts under a folder, in the order of their paths. Links to folders are not followed."""
    texts, binary, unreadable = {}, 0, 0
    files, left_out = _files(path)
    for file in files:
        try:
            data = file.read_bytes()
        except OSError:
            unreadable += 1
            continue
        if b"\0" in data:
            binary += 1
        else:
            texts[file.relative_to(path).as_posix()] = _decoded(data)
    return Folder(texts, binary, unreadable, tuple(left_out))


def _files(path: Path) -> tuple[list[Path], list[str]]:
    """The files to read, and what is left out, both sorted."""
    found: list[Path] = []
    left_out: list[str] = []
    for folder, folders, names in os.walk(path):
        here = Path(folder)
        left_out += [f"{(here / name).relative_to(path).as_posix()}/" for name in folders if _is_left_out(name)]
        left_out += [(here / name).relative_to(path).as_posix() for name in names if _is_hidden(name)]
        folders[:] = [name for name in folders if not _is_left_out(name)]
        found += [file for name in names if not _is_hidden(name) and (file := here / name).is_file()]
    return sorted(found), sorted(left_out)


def _is_left_out(folder: str) -> bool:
    return _is_hidden(folder) or folder in LEFT_OUT


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _folder(path: Path, option: str) -> dict[str, str]:
    folder = read_folder(path)
    skipped = [f"{folder.binary:,} binary"] * bool(folder.binary)
    skipped += [f"{folder.unreadable:,} unreadable"] * bool(folder.unreadable)
    skipped += [_listed(folder.left_out)] * bool(folder.left_out)
    note = f"; skipped {' and '.join(skipped)}" if skipped else ""
    size = sum(map(len, folder.texts.values()))
    terminal.note(f"rlm: {len(folder.texts):,} files, {size:,} characters{note}")
    if not folder.texts:
        raise ConfigError(f"{option} {path} holds no text file.")
    return folder.texts


def _listed(paths: Sequence[str]) -> str:
    more = f", … ({len(paths):,} in all)" if len(paths) > _LISTED else ""
    return f"{', '.join(paths[:_LISTED])}{more}"


def _holds_something(stream: TextIO | None) -> bool:
    """Whether a stream is a file or a pipe with something in it; a pipe is not waited for."""
    try:
        file = os.fstat(stream.fileno()) if stream is not None else None
    except (OSError, ValueError):
        return False  # closed, or not of the system
    if file is None or stat.S_ISREG(file.st_mode):
        return file is not None and file.st_size > 0
    return stat.S_ISFIFO(file.st_mode) and stream is not None and _bytes_waiting(stream.fileno()) > 0


def _bytes_waiting(pipe: int) -> int:
    if sys.platform == "win32":
        return 0
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def _stdin() -> bytes:
    if sys.stdin.isatty():
        terminal.note("rlm: reading the context from the terminal; Ctrl-D ends it")
    return sys.stdin.buffer.read()


def _text(data: bytes, name: str) -> str:
    if b"\0" in data:
        raise ConfigError(f"{name} is binary: give a text file, or extract its text first.")
    if not data:
        raise ConfigError(f"{name} is empty: there is nothing to ask about.")
    return _decoded(data)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8-sig", "surrogateescape")
