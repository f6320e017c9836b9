"""Read text files and folders of other users: within limits, and never outside of the folder.

A path below a folder is opened name by name, each relative to the descriptor of its parent, and no name may be a link.
So a folder that is replaced by a link between its listing and its opening is an error, and does not lead outside. A
link to a file is resolved first; the file is read if it is in the folder and not hidden, and is opened in the same way.
Hard links cannot be recognised: a file that has a name in the folder is a file of the folder.

Files are opened without blocking (a pipe would wait for a writer) and read only if they are regular. A file that grows
while it is read is read up to the size that it had when it was opened.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import BinaryIO, Literal, NamedTuple

from rlm_kernel.types import TextFile
from rlm_kernel.untrusted import encodings

LEFT_OUT = frozenset({"node_modules", "venv", "__pycache__"})
"""Folders of installed or generated files. Hidden folders (.git, .venv) are left out, too."""

MAX_ENTRIES = 250_000
"""Files, folders and links that a folder may hold."""

MAX_DEPTH = 100
"""Maximum depth of folders: a path is opened name by name, so a deep one takes long."""

_PIECE = 1 << 20
_BOM = "\ufeff"
_EXCERPT = 500_000
"""Characters that are kept of each end of a large file."""
_CONTROL = re.compile("[\0-\x08\x0e-\x1a]")
"""Characters that no text in UTF-16 holds; bytes that are not UTF-16 look like them."""
_CONTROL_BYTES = re.compile(rb"[\x01-\x08\x0e-\x1a]")
_MAX_NULS = 0.1
"""Of the bytes of a text: a log of a machine that lost its power holds some."""
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY

Parts = tuple[str, ...]
Kind = Literal["file", "folder", "link", "special"]
Refusal = Literal["link", "special file", "other file system", "too deep"]


class NotTextError(ValueError):
    """A file holds too many NUL bytes for a text, or a few and other bytes that no text holds."""


class TooLargeError(ValueError):
    """There are more bytes than may be read.

    Attributes:
        size: how many bytes there are at least.
    """

    def __init__(self, size: int) -> None:
        super().__init__(f"at least {size:,} bytes")
        self.size = size


class Text(NamedTuple):
    """A text that was read.

    Attributes:
        text: without a byte order mark.
        size: bytes that were read.
        encoding: as Python names it.
    """

    text: str
    size: int
    encoding: str


class TooManyFilesError(ValueError):
    """A folder holds more than `MAX_ENTRIES` files, folders and links."""


@dataclass(slots=True)
class Found:
    """The texts in one file. Paths are those of members of an archive or a mail; the file itself is ``""``.

    Attributes:
        texts: by path.
        unread: what could not be read, to the reason.
        notes: facts about a text that is not whole or was not UTF-8, by path.
    """

    texts: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def add_note(self, path: str, note: str) -> None:
        """Add a fact about a text to those that are known."""
        self.notes[path] = "; ".join(filter(None, (self.notes.get(path), note)))


ReadFile = Callable[[BinaryIO, str, int], tuple[Found, int]]
"""Reads an open file, given its name and the bytes that there is room for; returns also the bytes that it took.

Raises `NotTextError`, `TooLargeError` or OSError.
"""


class Folder(NamedTuple):
    """The texts of a folder by relative path, and its other files. Paths of folders end with a slash.

    Attributes:
        texts: by path, in the order of the paths. The path of a member of an archive begins with that of the archive.
        binary: files that are not text.
        unreadable: files and folders without the permission to read them, or with an error.
        left_out: hidden files and folders, and those of `LEFT_OUT`.
        refused: paths that are never read: links that lead outside, to a left-out file or to a folder; devices, pipes
            and sockets; folders of another file system; folders below `MAX_DEPTH`.
        unread: documents that could not be read, to the reason.
        notes: as in `Found`.
    """

    texts: dict[str, str]
    binary: tuple[str, ...]
    unreadable: tuple[str, ...]
    left_out: tuple[str, ...]
    refused: dict[Refusal, tuple[str, ...]]
    unread: dict[str, str]
    notes: dict[str, str]


def read_text(file: BinaryIO, max_bytes: int) -> Text:
    """The text of a file or a stream. Needs about twice the memory of the text.

    UTF-8, UTF-16 and UTF-32 are read, the last with a byte order mark only, which is dropped. Where other bytes are no
    encoding of a region (cp1252, for example), or a few among UTF-8, they become lone surrogates: nothing is lost.

    Args:
        file: open; a regular file is read up to the size that it has now, a stream to its end.
        max_bytes: how many bytes may be read.

    Raises:
        NotTextError: it is binary.
        TooLargeError: it holds more than `max_bytes`. Of a regular file nothing is read then.
        OSError: it cannot be read.
    """
    about = os.fstat(file.fileno())
    size = about.st_size if stat.S_ISREG(about.st_mode) else 0
    if size > max_bytes:
        raise TooLargeError(size)
    return join_text(_pieces(file, size), max_bytes)


def join_text(pieces: Iterator[bytes], max_bytes: int) -> Text:
    """`read_text` of bytes in pieces. The first piece shows the encoding.

    Raises:
        NotTextError, TooLargeError: as in `read_text`.
    """
    first = next(pieces, b"")
    encoding = encodings.of_head(first)
    wide = encoding.startswith(("utf-16", "utf-32"))
    decoder = codecs.getincrementaldecoder(encoding)("strict" if wide else "surrogateescape")
    texts: list[str] = []
    read = nuls = 0
    try:
        for piece in chain((first,), pieces):
            read += len(piece)
            nuls += piece.count(0)
            if not wide and nuls and (nuls > _MAX_NULS * read or _CONTROL_BYTES.search(piece)):
                raise NotTextError
            if read > max_bytes:
                raise TooLargeError(read)
            texts.append(decoder.decode(piece))
            if wide and _CONTROL.search(texts[-1]):
                raise NotTextError
        texts.append(decoder.decode(b"", final=True))
    except UnicodeDecodeError:
        raise NotTextError from None
    whole = "".join(texts)
    # The decoder of "utf-8-sig" has dropped the mark. A second one belongs to the text.
    text, found = encodings.decode(whole if encoding == "utf-8-sig" else whole.removeprefix(_BOM))
    if nuls and not wide and found is not None:
        raise NotTextError
    return Text(text, read, found or encoding)


def scan_text(file: BinaryIO, path: str) -> TextFile:
    """The facts about a regular file. It is read in pieces, and the memory does not depend on its size.

    Raises:
        UnicodeDecodeError: it may be another encoding, or begins with a byte order mark.
        NotTextError: it holds a NUL byte.
        OSError: it cannot be read.
    """
    about = os.fstat(file.fileno())
    decoder = codecs.getincrementaldecoder("utf-8")()
    head = tail = ""
    characters = lines = 0
    for piece in _pieces(file, about.st_size):
        if b"\0" in piece:
            raise NotTextError
        text = decoder.decode(piece)
        if not characters and text.startswith(_BOM):
            raise UnicodeDecodeError("utf-8", piece[:3], 0, 3, "a byte order mark")
        if encodings.ISO_2022_JP.search(text):
            raise UnicodeDecodeError("utf-8", piece[:1], 0, 1, "it may be ISO-2022-JP")
        characters += len(text)
        lines += text.count("\n")
        head += text[: _EXCERPT - len(head)]
        tail = (tail + text)[-_EXCERPT:]
    decoder.decode(b"", final=True)
    between = characters - len(head)
    end = tail[-min(_EXCERPT, between) :] if between else ""
    lines += bool(tail) and not tail.endswith("\n")
    return TextFile(path, about.st_size, about.st_mtime_ns, characters, lines, head + end)


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The bytes to the end; at most `size` bytes if it is not 0 (files in /proc report 0)."""
    left = size or None
    while piece := file.read(_PIECE if left is None else min(_PIECE, left)):
        yield piece
        left = None if left is None else left - len(piece)


def read_folder(folder: int, path: str, max_bytes: int, read: ReadFile) -> Folder:
    """The texts under a folder.

    Args:
        folder: its descriptor.
        path: its path, to resolve links with; nothing is opened by it.
        max_bytes: how many bytes of text may be read.
        read: reads each file.

    Raises:
        TooLargeError: it holds more text than that.
        TooManyFilesError: it holds too many files.
        OSError: it cannot be listed.
    """
    return _FolderReader(folder, path, max_bytes, read).read()


def is_left_out(folder: str) -> bool:
    """Whether a folder of this name is not entered."""
    return is_hidden(folder) or folder in LEFT_OUT


def is_hidden(name: str) -> bool:
    """Whether this is the name of a hidden file."""
    return name.startswith(".")


class _FolderReader:
    def __init__(self, root: int, path: str, max_bytes: int, read: ReadFile) -> None:
        self._read_file = read
        self._root = root
        self._device = os.fstat(root).st_dev
        self._path = os.path.realpath(path)
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries = 0
        self._found = Found()
        self._binary: list[str] = []
        self._unreadable: list[str] = []
        self._left_out: list[str] = []
        self._refused: dict[Refusal, list[str]] = {}

    def read(self) -> Folder:
        """Read the folder."""
        for path, is_link in sorted(self._files()):
            self._read(path, is_link=is_link)
        refused = {why: tuple(sorted(paths)) for why, paths in self._refused.items()}
        unreadable, left_out = tuple(sorted(self._unreadable)), tuple(sorted(self._left_out))
        found, binary = self._found, tuple(self._binary)
        return Folder(found.texts, binary, unreadable, left_out, refused, found.unread, found.notes)

    # -- the listing

    def _files(self) -> Iterator[tuple[Parts, bool]]:
        """The paths of files and links, each with whether it is a link."""
        folders: list[Parts] = [()]
        while folders:
            here = folders.pop()
            for name, kind in self._entries_of(here):
                path = (*here, name)
                if is_left_out(name) if kind == "folder" else is_hidden(name):
                    self._left_out.append(_shown(path, kind))
                elif kind == "special":
                    self._refuse("special file", path)
                elif kind != "folder":
                    yield path, kind == "link"
                elif len(path) > MAX_DEPTH:
                    self._refuse("too deep", path, kind)
                else:
                    folders.append(path)

    def _entries_of(self, path: Parts) -> list[tuple[str, Kind]]:
        """The names in a folder; empty if it cannot be listed."""
        try:
            folder = self._open(path, os.O_DIRECTORY)
            try:
                if os.fstat(folder).st_dev != self._device:
                    self._refuse("other file system", path, "folder")
                    return []
                with os.scandir(folder) as entries:
                    found = [(entry.name, _kind(entry)) for entry in islice(entries, MAX_ENTRIES)]
            finally:
                os.close(folder)
        except OSError:
            if not path:
                raise
            self._unreadable.append(_shown(path, "folder"))
            return []
        self._entries += len(found)
        if self._entries >= MAX_ENTRIES:
            raise TooManyFilesError
        return found

    # -- one file

    def _read(self, path: Parts, *, is_link: bool) -> None:
        try:
            file = self._open_file(path, is_link=is_link)
        except OSError:
            self._unreadable.append(_shown(path))
            return
        if file is None:
            return
        whole = "/".join(path)
        with file:
            try:
                found, size = self._read_file(file, path[-1], self._max_bytes - self._bytes)
            except NotTextError:
                self._binary.append(whole)
            except TooLargeError as error:
                if not _begins_as_binary(file):
                    raise TooLargeError(self._bytes + error.size) from None
                self._binary.append(whole)
            except OSError:
                self._unreadable.append(_shown(path))
            else:
                self._bytes += size
                self._keep(whole, found)

    def _keep(self, path: str, found: Found) -> None:
        """Add what was found in a file, under its path."""
        mine = self._found
        for ours, theirs in ((mine.texts, found.texts), (mine.unread, found.unread), (mine.notes, found.notes)):
            ours.update({f"{path}/{member}" if member else path: text for member, text in theirs.items()})

    def _open_file(self, path: Parts, *, is_link: bool) -> BinaryIO | None:
        """A regular file; None for anything else, which is added to `refused`."""
        target = self._target(path) if is_link else path
        if target is None:
            self._refuse("link", path)
            return None
        fd = self._open(target)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return os.fdopen(fd, "rb")
        os.close(fd)
        self._refuse("link" if is_link else "special file", path)
        return None

    def _target(self, link: Parts) -> Parts | None:
        """The target of a link, if that is a visible path in the folder."""
        whole = os.path.join(self._path, *link)  # noqa: PTH118 (a name may hold bytes that are not UTF-8)
        try:
            os.stat(whole)  # noqa: PTH116 (the system gives up on a loop and on a long chain; `realpath` recurses)
        except OSError:
            return None
        target = os.path.relpath(os.path.realpath(whole), self._path)
        *folders, name = target.split("/")
        # A path that leads out of the folder begins with "..", and that is hidden.
        return None if is_hidden(name) or any(map(is_left_out, folders)) else (*folders, name)

    def _open(self, path: Parts, kind: int = 0) -> int:
        """A descriptor of a path, no part of which may be a link.

        Args:
            path: below the folder.
            kind: `os.O_DIRECTORY`, or 0.

        Raises:
            OSError: it cannot be opened, is of another kind, or a part of it is a link.
        """
        fd = os.open(".", _FLAGS | os.O_DIRECTORY, dir_fd=self._root)
        for place, name in enumerate(path, 1):
            above = fd
            try:
                fd = os.open(name, _FLAGS | (kind if place == len(path) else os.O_DIRECTORY), dir_fd=above)
            finally:
                os.close(above)
        return fd

    def _refuse(self, why: Refusal, path: Parts, kind: Kind = "file") -> None:
        self._refused.setdefault(why, []).append(_shown(path, kind))


def _kind(entry: os.DirEntry[str]) -> Kind:
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "special"


def _shown(path: Parts, kind: Kind = "file") -> str:
    return f"{'/'.join(path)}{'/' * (kind == 'folder')}"


def _begins_as_binary(file: BinaryIO) -> bool:
    file.seek(0)
    return b"\0" in file.read(_PIECE)
