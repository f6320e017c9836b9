"""Where `--context` comes from: a file, a folder or stdin, as text."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

from rlm_kernel.errors import ConfigError

_SKIPPED_FOLDERS = {".git"}


class Folder(NamedTuple):
    """The texts of a folder by relative path, and how many of its files are no text or cannot be read."""

    texts: dict[str, str]
    binary: int
    unreadable: int


def read(source: str, option: str = "--context") -> str | dict[str, str]:
    """The text of a file, the texts of a folder by relative path, or with ``"-"`` what stdin holds.

    Bytes that are no UTF-8 become lone surrogates, so that nothing is lost. What a folder holds beside text is
    skipped, and stderr says how much that was. `option`: what the user gave it with, for messages.

    Raises:
        ConfigError: there is nothing of that name, it cannot be read, or it is not text.
    """
    if source == "-":
        return _text(_stdin(), f"{option} stdin")
    path = Path(source)
    if path.is_dir():
        return _folder(path, option)
    try:
        return _text(path.read_bytes(), f"{option} {source}")
    except OSError as error:
        raise ConfigError(f"{option} {source} cannot be read: {error.strerror}.") from error


def read_folder(path: Path) -> Folder:
    """All texts under a folder, in the order of their paths. Links to folders are not followed."""
    texts, binary, unreadable = {}, 0, 0
    for file in sorted(_files(path)):
        try:
            data = file.read_bytes()
        except OSError:
            unreadable += 1
            continue
        if b"\0" in data:
            binary += 1
        else:
            texts[file.relative_to(path).as_posix()] = _decoded(data)
    return Folder(texts, binary, unreadable)


def _files(path: Path) -> list[Path]:
    found: list[Path] = []
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS]
        found += [file for name in names if (file := Path(folder, name)).is_file()]
    return found


def _folder(path: Path, option: str) -> dict[str, str]:
    folder = read_folder(path)
    skipped = [f"{folder.binary:,} binary"] * bool(folder.binary)
    skipped += [f"{folder.unreadable:,} unreadable"] * bool(folder.unreadable)
    note = f"; skipped {' and '.join(skipped)}" if skipped else ""
    size = sum(map(len, folder.texts.values()))
    print(f"rlm: {len(folder.texts):,} files, {size:,} characters{note}", file=sys.stderr)
    if not folder.texts:
        raise ConfigError(f"{option} {path} holds no text file.")
    return folder.texts


def _stdin() -> bytes:
    if sys.stdin.isatty():
        print("rlm: reading the context from the terminal; Ctrl-D ends it", file=sys.stderr)
    return sys.stdin.buffer.read()


def _text(data: bytes, name: str) -> str:
    if b"\0" in data:
        raise ConfigError(f"{name} is binary: give a text file, or extract its text first.")
    return _decoded(data)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8-sig", "surrogateescape")
