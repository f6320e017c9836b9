"""Read the context of a run from a file, a folder or stdin."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import BinaryIO

from rlm_kernel import terminal
from rlm_kernel.errors import ConfigError
from rlm_kernel.text import one_line
from rlm_kernel.types import TextFile
from rlm_kernel.untrusted.text_files import (
    MAX_DEPTH,
    MAX_ENTRIES,
    Folder,
    NotTextError,
    Refusal,
    TooLargeError,
    TooManyFilesError,
    read_folder,
    read_text,
    scan_text,
)

MAX_BYTES = 1 << 30
"""Bytes that an input may have, unless the user says otherwise. A run takes several times as much memory."""

SMALL_BYTES = 1 << 20
"""The host reads files up to this size itself."""

LIMIT_OPTION = "--max-context-bytes"

_LISTED = 5
_REFUSALS: dict[Refusal, str] = {
    "link": "links that leave the folder or lead to what is left out or to a folder",
    "special file": "devices, pipes or sockets",
    "other file system": "folders of other file systems",
    "too deep": f"folders below the {MAX_DEPTH}th level",
}


def add_limit(add: Callable[..., object]) -> None:
    """Declare the limit of an input."""
    text = "bytes that the input may have, as 500m or 2g (default: 1g)"
    add(LIMIT_OPTION, type=_size, default=MAX_BYTES, metavar="SIZE", help=text)


def _size(text: str) -> int:
    from rlm_kernel.text import size_in_bytes

    try:
        return size_in_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def of_arguments(args: argparse.Namespace) -> str | dict[str, str] | None:
    """The input that a command line names with `--context`; None when it names none.

    Raises:
        ConfigError: see `read`.
    """
    return None if args.context is None else read(args.context, max_bytes=args.max_context_bytes)


def read(source: str, option: str = "--context", max_bytes: int = MAX_BYTES) -> str | dict[str, str]:
    """The text of a file, the texts of a folder by relative path, or with ``"-"`` what stdin holds.

    Bytes that are not UTF-8 become lone surrogates, so that nothing is lost. In a folder, binary files, hidden files (a
    `.env` holds keys) and folders such as node_modules are skipped. Links out of the folder or to skipped files,
    devices and pipes in it are refused. All of these are listed on stderr. A single file may be a link or a pipe,
    because the user named it.

    Args:
        source: a path, or ``"-"``.
        option: the option that named it, for messages.
        max_bytes: how many bytes may be read.

    Raises:
        ConfigError: no name is given, nothing of that name exists, it cannot be read, it is empty, not text or larger
            than `max_bytes`.
    """
    if source == "-":
        with _explained(f"{option} stdin", option, max_bytes):
            return _text(_stdin(), f"{option} stdin", max_bytes)
    if not source:  # as a path it would be the working folder
        raise ConfigError(f"{option} is empty: name a file or a folder.")
    with _explained(f"{option} {source}", option, max_bytes):
        fd = os.open(source, os.O_RDONLY | os.O_NOCTTY)
        try:
            return _content(fd, source, option, max_bytes)
        finally:
            os.close(fd)


def open_text(path: PurePath, option: str = "prompt", *, in_kernel: bool, max_bytes: int = MAX_BYTES) -> str | TextFile:
    """A text file as a context.

    Args:
        path: of the file.
        option: the argument that named it, for messages.
        in_kernel: whether the kernel sees the file. Then the kernel reads a large file in UTF-8 itself. Any other file
            is read here, as `read` does.
        max_bytes: how many bytes may be read.

    Raises:
        ConfigError: see `read`; or it is a folder.
    """
    file = Path(path).absolute()
    with _explained(f"{option} {file}", option, max_bytes):
        if file.is_dir():
            raise ConfigError(f"{option} {file} is a folder: give one file, or a dict with the text of each.")
        with file.open("rb") as content:
            about = os.fstat(content.fileno())
            if in_kernel and stat.S_ISREG(about.st_mode) and SMALL_BYTES < about.st_size <= max_bytes:
                with suppress(UnicodeDecodeError):
                    return scan_text(content, str(file))
                content.seek(0)
            return _text(content, f"{option} {file}", max_bytes)


def _content(fd: int, source: str, option: str, max_bytes: int) -> str | dict[str, str]:
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        return _texts(read_folder(fd, source, max_bytes), f"{option} {source}")
    if stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or os.isatty(fd):
        with open(fd, "rb", closefd=False) as file:
            return _text(file, f"{option} {source}", max_bytes)
    raise ConfigError(f"{option} {source} is a device: name a file, a folder or a pipe.")


@contextmanager
def _explained(name: str, option: str, max_bytes: int) -> Iterator[None]:
    """Convert errors into a `ConfigError` that says why an input cannot be read."""
    more = f"raise {LIMIT_OPTION if option.startswith('-') else 'max_bytes'}"
    try:
        yield
    except ConfigError:
        raise
    except NotTextError:
        raise ConfigError(f"{name} is binary: give a text file, or extract its text first.") from None
    except TooLargeError as error:
        raise ConfigError(
            f"{name} has at least {error.size:,} bytes of text and the limit is {max_bytes:,}: {more}, or give a part."
        ) from None
    except TooManyFilesError:
        raise ConfigError(f"{name} holds more than {MAX_ENTRIES:,} files: name a folder below it.") from None
    except (OSError, ValueError) as error:  # a name may hold a NUL
        raise ConfigError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _texts(folder: Folder, name: str) -> dict[str, str]:
    size = sum(map(len, folder.texts.values()))
    notes = [_note("skipped", _skipped(folder)), _note("refused", _refused(folder))]
    terminal.print_note(f"rlm: {len(folder.texts):,} files, {size:,} characters{''.join(notes)}")
    if not folder.texts:
        raise ConfigError(f"{name} holds no text file.")
    return folder.texts


def _note(verb: str, what: Sequence[str]) -> str:
    return f"; {verb} {' and '.join(what)}" if what else ""


def _skipped(folder: Folder) -> list[str]:
    skipped = [f"{folder.binary:,} binary"] * bool(folder.binary)
    skipped += [f"{len(folder.unreadable):,} unreadable ({_join_names(folder.unreadable)})"] * bool(folder.unreadable)
    return skipped + [_join_names(folder.left_out)] * bool(folder.left_out)


def _refused(folder: Folder) -> list[str]:
    return [f"{len(paths):,} {_REFUSALS[why]} ({_join_names(paths)})" for why, paths in folder.refused.items()]


def _join_names(paths: Sequence[str]) -> str:
    more = f", … ({len(paths):,} in all)" if len(paths) > _LISTED else ""
    return f"{', '.join(map(one_line, paths[:_LISTED]))}{more}"


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise ConfigError("There is no stdin to read the context from: name a file.")
    if sys.stdin.isatty():
        terminal.print_note("rlm: reading the context from the terminal; Ctrl-D ends it")
    return sys.stdin.buffer


def _text(file: BinaryIO, name: str, max_bytes: int) -> str:
    text, size = read_text(file, max_bytes)
    if not size:
        raise ConfigError(f"{name} is empty: there is nothing to ask about.")
    return text
