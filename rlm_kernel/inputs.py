"""Read the context of a run from a file, a folder or stdin: text as it is, documents as text."""

from __future__ import annotations

import argparse
import errno
import os
import select
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from io import BufferedReader
from os import PathLike
from pathlib import Path, PurePath
from tempfile import TemporaryFile
from typing import BinaryIO, cast

from rlm_kernel import terminal
from rlm_kernel.documents.found import LOG_NOT_READ
from rlm_kernel.documents.kinds import HEAD_BYTES, TEXT, is_in_wal_mode, kind_of
from rlm_kernel.documents.reader import DocumentReader
from rlm_kernel.errors import ConfigError
from rlm_kernel.text import one_line
from rlm_kernel.types import TextFile
from rlm_kernel.untrusted import encodings
from rlm_kernel.untrusted.text_files import (
    MAX_DEPTH,
    MAX_ENTRIES,
    Folder,
    Found,
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

PIPE_SECONDS = 1.0
"""Seconds that a named pipe may be without a writer: a shell may start the program that writes at the same time."""

LIMIT_OPTION = "--max-context-bytes"

_MAX_PATH = 1024
"""Bytes of a path on macOS."""

_LISTED = 5
"""Names in a line."""

_MAX_OF_ARCHIVE = 50
"""Names that one archive in a folder may have in the list of what is not read, for each reason."""

_MAX_LINES = 200
"""Of the list of what is not read."""

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


def load(path: str | PathLike[str], *, max_bytes: int = MAX_BYTES) -> str | dict[str, str]:
    """What a file or a folder holds, as text: the same that `rlm run --context` and `%%rlm --file` read.

    Text in UTF-8, UTF-16, UTF-32 or the encoding of a region (cp1252) is read as it is. Documents, tables, notebooks,
    mail and archives become text in a child process with limits on time and memory; some need the extra `files`. The
    page "Inputs" of the documentation lists them. What could not be read is listed on stderr, with the reason.

    Args:
        path: of a file or a folder; ``"-"`` is stdin.
        max_bytes: how many bytes may be read.

    Returns:
        The text of a file; the texts by path of a folder, an archive or a mail with attachments.

    Raises:
        ConfigError: it cannot be read, is empty, or larger than `max_bytes`.
    """
    return read(os.fspath(path), "path", max_bytes)


def read(source: str, option: str = "--context", max_bytes: int = MAX_BYTES) -> str | dict[str, str]:
    """`load` for the command line: errors name the option.

    In a folder, hidden files (a `.env` holds keys) and folders such as node_modules are skipped. Links out of the
    folder or to skipped files, devices and pipes in it are refused. All of these are listed on stderr. A single file
    may be a link or a pipe, because the user named it. Bytes that fit no encoding become lone surrogates.

    Args:
        source: a path, or ``"-"``.
        option: the option that named it, for messages.
        max_bytes: how many bytes may be read.

    Raises:
        ConfigError: no name is given, nothing of that name exists, it cannot be read, it is empty, binary or larger
            than `max_bytes`.
    """
    if source == "-":
        with _explained(f"{option} stdin", option, max_bytes):
            return _one(_stdin(), f"{option} stdin", max_bytes)
    if not source:  # as a path it would be the working folder
        raise ConfigError(f"{option} is empty: name a file or a folder.")
    with _explained(f"{option} {source}", option, max_bytes):
        fd = os.open(source, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            return _content(fd, source, option, max_bytes)
        finally:
            os.close(fd)


def open_text(
    path: PurePath, option: str = "prompt", *, in_kernel: bool, max_bytes: int = MAX_BYTES
) -> str | dict[str, str] | TextFile:
    """A file or a folder as a context.

    Args:
        path: of it.
        option: the argument that named it, for messages.
        in_kernel: whether the kernel sees the file. Then the kernel reads a large text in UTF-8 itself. Anything else
            is read here, as `read` does.
        max_bytes: how many bytes may be read.

    Raises:
        ConfigError: see `read`.
    """
    file = Path(path).absolute()
    with _explained(f"{option} {file}", option, max_bytes):
        about = file.stat()
        if in_kernel and stat.S_ISREG(about.st_mode) and SMALL_BYTES < about.st_size <= max_bytes:
            with file.open("rb") as content, suppress(UnicodeDecodeError, NotTextError):
                if kind_of(file.name, content.peek(HEAD_BYTES)[:HEAD_BYTES]) == TEXT:
                    return scan_text(content, str(file))
    return read(str(file), option, max_bytes)


def _content(fd: int, source: str, option: str, max_bytes: int) -> str | dict[str, str]:
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        with DocumentReader() as documents:
            folder = read_folder(fd, source, max_bytes, partial(_read_in_folder, documents=documents))
        return _texts(folder, f"{option} {source}")
    if stat.S_ISFIFO(mode):
        _await_writer(fd, source)
    elif not stat.S_ISREG(mode) and not os.isatty(fd):
        raise ConfigError(f"{option} {source} is a device: name a file, a folder or a pipe.")
    if not stat.S_ISREG(mode):
        os.set_blocking(fd, True)
    with open(fd, "rb", closefd=False) as file:
        return _one(file, f"{option} {source}", max_bytes)


def _await_writer(fd: int, source: str) -> None:
    """Check that a program writes to a named pipe, or begins to. Other pipes, of a shell, have a writer."""
    if source.startswith(("/dev/", "/proc/")):
        return
    events = select.poll()
    events.register(fd, select.POLLIN)
    if events.poll(int(PIPE_SECONDS * 1000)):
        return
    with suppress(BlockingIOError):  # a program has it open, and has written nothing so far
        os.read(fd, 1)
        raise ConfigError(f"{source} is a pipe to which no program writes: start that first, or name a file.")


def _one(file: BufferedReader, name: str, max_bytes: int) -> str | dict[str, str]:
    """The content of the one file that the user named."""
    with DocumentReader() as documents:
        found, size = _read_file(file, name, max_bytes, documents)
    _report(found, name)
    if found.unread and not found.texts:
        raise ConfigError(f"{name} cannot be read: {_reasons(found.unread)}.")
    if not size or not found.texts:
        raise ConfigError(f"{name} is empty: there is nothing to ask about.")
    return found.texts[""] if found.texts.keys() == {""} else _sorted(found.texts)


def _reasons(unread: dict[str, str]) -> str:
    """Why nothing in a file was read: the most common reasons."""
    if "" in unread:
        return unread[""]
    counts = Counter(unread.values())
    listed = [f"{why} ({count:,} file{'s' * (count != 1)})" for why, count in counts.most_common(_LISTED)]
    return f"nothing in it could be read: {'; '.join(listed)}{'; …' * (len(counts) > _LISTED)}"


def _sorted(texts: dict[str, str]) -> dict[str, str]:
    """The texts by path, that of a mail before those of its attachments."""
    return {path or "mail": text for path, text in sorted(texts.items())}


def _read_file(file: BufferedReader, name: str, room: int, documents: DocumentReader) -> tuple[Found, int]:
    """What a file holds, and the bytes that this takes."""
    head = (file.peek(HEAD_BYTES) or b"")[:HEAD_BYTES]
    kind = kind_of(name, head)
    if kind == TEXT:
        text = read_text(file, room)
        note = encodings.note(text.encoding)
        return Found({"": text.text}, notes={"": note} if note else {}), text.size
    about = os.fstat(file.fileno())
    if stat.S_ISREG(about.st_mode) and about.st_size:
        if about.st_size > room:
            raise TooLargeError(about.st_size)
        with _wal(file) if kind == "sqlite" else nullcontext((None, "")) as (wal, note):
            found = documents.read(file, name, room, wal)
        if note and found.texts and is_in_wal_mode(head):
            found.add_note("", note)
    else:
        found = _spooled(file, name, room, documents)
    return found, sum(map(len, found.texts.values()))


def _read_in_folder(file: BufferedReader, name: str, room: int, documents: DocumentReader) -> tuple[Found, int]:
    """`_read_file`, where many files of an archive take one line of the list of what is not read."""
    found, size = _read_file(file, name, room, documents)
    for why, paths in _by_reason({path: why for path, why in found.unread.items() if path}, name).items():
        if len(paths) > _MAX_OF_ARCHIVE:
            for path in paths:
                del found.unread[path]
            found.add_note("", f"not read: {_join_names(paths)}: {why}")
    return found, size


@contextmanager
def _wal(database: BinaryIO) -> Iterator[tuple[BinaryIO | None, str]]:
    """The write-ahead log of an SQLite database with its last transactions, and a note.

    None without a note: it has no such log. A note: it cannot be read, or nothing says where it would be.
    """
    try:
        fd = os.open(f"{_path_of(database.fileno())}-wal", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        yield None, ""
        return
    except OSError:
        yield None, LOG_NOT_READ
        return
    with os.fdopen(fd, "rb") as wal:
        about = os.fstat(fd)
        is_file = stat.S_ISREG(about.st_mode)
        yield wal if is_file and about.st_size else None, "" if is_file else LOG_NOT_READ


def _path_of(fd: int) -> str:
    """The path of an open file.

    Raises:
        OSError: the system does not say it.
    """
    if sys.platform == "darwin":
        import fcntl

        return os.fsdecode(fcntl.fcntl(fd, fcntl.F_GETPATH, bytes(_MAX_PATH)).rstrip(b"\0"))
    if not os.path.exists("/proc/self/fd"):  # noqa: PTH110
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 (a name of bytes, too)


def _spooled(file: BinaryIO, name: str, room: int, documents: DocumentReader) -> Found:
    """What a document holds that comes through a pipe."""
    with TemporaryFile() as copy:
        while piece := file.read(1 << 20):
            copy.write(piece)
            if copy.tell() > room:
                raise TooLargeError(copy.tell())
        copy.flush()
        return documents.read(copy, name, room)


def _report(found: Found | Folder, name: str) -> None:
    """List on stderr what is not whole, was not UTF-8 or could not be read."""
    for what, paths in _by_reason(found.notes, name).items():
        terminal.print_note(f"rlm: {_join_names(paths)}: {what}")
    unread = {path: why for path, why in found.unread.items() if path}
    if isinstance(found, Folder):
        unread |= _cut_short(found)
    lines = [
        f"rlm: not read: {', '.join(map(one_line, paths[place : place + _LISTED]))}: {why}"
        for why, paths in _by_reason(unread, name).items()
        for place in range(0, len(paths), _LISTED)
    ]
    for line in lines[:_MAX_LINES]:
        terminal.print_note(line)
    if len(lines) > _MAX_LINES:
        terminal.print_note(
            f"rlm: not read: {len(unread):,} files in all; the first {_MAX_LINES * _LISTED:,} are above"
        )


def _by_reason(about: Mapping[str, str], name: str) -> dict[str, list[str]]:
    same: dict[str, list[str]] = {}
    for path, what in about.items():
        same.setdefault(what, []).append(path or name)
    return same


def _cut_short(folder: Folder) -> dict[str, str]:
    """The files that the first line about a folder does not name all, to the reason."""
    groups = (("binary", folder.binary), ("unreadable", folder.unreadable))
    refused = ((_REFUSALS[why], paths) for why, paths in folder.refused.items())
    return {path: why for why, paths in (*groups, *refused) if len(paths) > _LISTED for path in paths}


@contextmanager
def _explained(name: str, option: str, max_bytes: int) -> Iterator[None]:
    """Convert errors into a `ConfigError` that says why an input cannot be read."""
    more = f"raise {'max_bytes' if option.islower() and option.isidentifier() else LIMIT_OPTION}"
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
    _report(folder, name)
    if not folder.texts:
        raise ConfigError(f"{name} holds no text file.")
    return folder.texts


def _note(verb: str, what: Sequence[str]) -> str:
    return f"; {verb} {' and '.join(what)}" if what else ""


def _skipped(folder: Folder) -> list[str]:
    skipped = [f"{len(folder.binary):,} binary ({_join_names(folder.binary)})"] * bool(folder.binary)
    skipped += [f"{len(folder.unreadable):,} unreadable ({_join_names(folder.unreadable)})"] * bool(folder.unreadable)
    return skipped + [_join_names(folder.left_out)] * bool(folder.left_out)


def _refused(folder: Folder) -> list[str]:
    return [f"{len(paths):,} {_REFUSALS[why]} ({_join_names(paths)})" for why, paths in folder.refused.items()]


def _join_names(paths: Sequence[str]) -> str:
    more = f", … ({len(paths):,} in all)" if len(paths) > _LISTED else ""
    return f"{', '.join(map(one_line, paths[:_LISTED]))}{more}"


def _stdin() -> BufferedReader:
    if sys.stdin is None:
        raise ConfigError("There is no stdin to read the context from: name a file.")
    if sys.stdin.isatty():
        terminal.print_note("rlm: reading the context from the terminal; Ctrl-D ends it")
    return cast("BufferedReader", sys.stdin.buffer)
