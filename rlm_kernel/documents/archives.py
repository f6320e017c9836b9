"""The files in an archive, a mailbox or a mail. They are read from memory and written nowhere."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Protocol, cast
from zipfile import BadZipFile, ZipFile, ZipInfo

from rlm_kernel.documents import formats
from rlm_kernel.documents.found import MAX_DOCUMENT_BYTES, Reading, UnreadError
from rlm_kernel.errors import check_extra
from rlm_kernel.untrusted.text_files import is_hidden, is_left_out

Member = tuple[str, BinaryIO | str]
"""The path of a member, and its content, or the reason why it is not read."""

_OFFICE = {"word/": "word", "xl/": "sheets", "ppt/": "slides"}
_MAIL_BEGINS = b"From "
_PIECE = 1 << 16

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_MAX_NAME = 4096
_SAYS_UTF_8 = 1 << 11
_NAMES = re.compile(r"""(?:\bb)?['"].*['"]""", re.DOTALL)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def zip_kind(file: BinaryIO) -> str:
    """The kind of a file that begins like a ZIP archive and whose name does not tell."""
    try:
        with ZipFile(file) as archive:
            names = archive.namelist()[:1_000]
            first = archive.read(names[0])[:100] if names[:1] == ["mimetype"] else b""
    except (BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError):
        return "zip"
    if first.startswith(b"application/epub"):
        return "epub"
    if first.startswith(b"application/vnd.oasis.opendocument"):
        return "opendocument"
    office = "[Content_Types].xml" in names
    return next(
        (kind for folder, kind in _OFFICE.items() if office and any(n.startswith(folder) for n in names)), "zip"
    )


def zipped(file: BinaryIO, reading: Reading) -> Iterator[Member]:
    """The files of a ZIP archive."""
    try:
        archive = ZipFile(file)
    except BadZipFile as error:
        raise UnreadError(f"it is no whole archive ({error})") from error
    with archive:
        for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
            if not entry.is_dir():
                name = _zip_name(entry)
                yield _shown(name), _zip_content(archive, entry, name, reading)


def _zip_name(entry: ZipInfo) -> str:
    """The name of an entry. Programs of macOS write UTF-8 without saying so; else it is cp437."""
    if not entry.flag_bits & _SAYS_UTF_8:
        with suppress(UnicodeError):
            return entry.filename.encode("cp437").decode("utf-8")
    return entry.filename


def _zip_content(archive: ZipFile, entry: ZipInfo, name: str, reading: Reading) -> BinaryIO | str:
    if (why := _why_not(name)) is not None:
        return why
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link"
    if entry.flag_bits & 1:
        return "it needs a password"
    try:
        with archive.open(entry) as content:
            return _unpack(content, reading)
    except (BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError, ValueError) as error:
        return f"it is damaged ({_NAMES.sub('…', str(error))})"  # what befell many files is listed once


def tar(file: BinaryIO, reading: Reading) -> Iterator[Member]:
    """The files of a TAR archive."""
    try:
        with tarfile.open(fileobj=file, mode="r|") as archive:
            for entry in archive:
                if entry.isdir():
                    continue
                why = _why_not(entry.name) or (None if entry.isreg() else "a link or a device")
                content = None if why else archive.extractfile(entry)
                yield _shown(entry.name), why or ("it is damaged" if content is None else _unpack(content, reading))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UnreadError(f"it is no whole archive ({error})") from error


def _zstd(file: BinaryIO) -> BinaryIO:
    check_extra("Reading a file of zstd", "pyarrow", "files")
    from pyarrow import CompressedInputStream

    return cast("BinaryIO", CompressedInputStream(file, "zstd"))


_COMPRESSED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7z": lzma.LZMAFile,
    b"\x28\xb5\x2f": _zstd,
}


def compressed(file: BinaryIO, member: str, reading: Reading) -> BinaryIO:
    """The content of a file of gzip, bzip2, xz or zstd. What comes before a damage is kept, with a note."""
    head = file.read(3)
    file.seek(0)
    opener = next(opener for begins, opener in _COMPRESSED.items() if head.startswith(begins))
    content = io.BytesIO()
    try:
        with opener(file) as opened:
            while content.tell() <= reading.unpacked and (piece := opened.read1(_PIECE)):
                content.write(piece)
    except (EOFError, OSError, lzma.LZMAError, zlib.error, ValueError) as error:
        if not content.tell():
            raise UnreadError(f"it is damaged ({error})") from error
        reading.tell("notes", member, f"the rest was not read: it is damaged ({error})")
    if content.tell() > reading.unpacked:
        raise UnreadError(f"the archive holds more than {MAX_DOCUMENT_BYTES:,} bytes")
    reading.unpacked -= content.tell()
    content.seek(0)
    return content


def mailbox(file: BinaryIO, _: Reading) -> Iterator[Member]:
    """The mails of a mailbox, numbered from 1."""
    lines: list[bytes] = []
    number = 0
    for line in file:
        if line.startswith(_MAIL_BEGINS) and lines:
            number += 1
            yield f"{number:05}.eml", io.BytesIO(b"".join(lines).removesuffix(b"\n"))  # an empty line ends each mail
            lines = []
        elif not line.startswith(_MAIL_BEGINS):
            lines.append(line.removeprefix(b">") if line.startswith(b">From ") else line)
    if lines:
        yield f"{number + 1:05}.eml", io.BytesIO(b"".join(lines).removesuffix(b"\n"))


def attachments(file: BinaryIO, _: Reading) -> Iterator[Member]:
    """The files that a mail holds."""
    for number, part in enumerate(formats.message_in(file.read()).iter_attachments(), 1):
        name = part.get_filename() or f"attachment {number}{'.eml' * (part.get_content_type() == 'message/rfc822')}"
        payload = part.get_payload(decode=True)
        if not isinstance(payload, bytes):  # a mail within the mail
            inner: Any = part.get_payload(0)
            payload = inner.as_bytes()
        yield _shown(PurePosixPath(name).name) or f"attachment {number}", io.BytesIO(payload)


def _shown(name: str) -> str:
    """A name with its control characters, and those that turn the direction of the text, as escapes; clipped."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), name)[:_MAX_NAME]


def _why_not(name: str) -> str | None:
    """Why a member of this name is left out, as in a folder; None: it is read."""
    *folders, last = PurePosixPath(name).parts
    if name.startswith("/") or ".." in folders or last == "..":
        return "its name leads out of the archive"
    return "hidden" if is_hidden(last) or any(map(is_left_out, folders)) or "__MACOSX" in folders else None


def _unpack(content: _Readable, reading: Reading) -> BinaryIO | str:
    """The content of a member; a text if it is larger than what may be unpacked of the whole file."""
    data = content.read(reading.unpacked + 1)
    if len(data) > reading.unpacked:
        return f"the archive holds more than {MAX_DOCUMENT_BYTES:,} bytes"
    reading.unpacked -= len(data)
    return io.BytesIO(data)


KINDS: dict[str, Callable[[BinaryIO, Reading], Iterator[Member]]] = {
    "zip": zipped,
    "tar": tar,
    "mailbox": mailbox,
    "mail": attachments,
}
"""Kinds that hold files."""
