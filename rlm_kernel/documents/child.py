"""The child process that reads documents: `python -m rlm_kernel.documents.child FD SECONDS MEMORY`.

It receives a request over a socket: a line of JSON and the descriptors of an open file, and of the write-ahead log of
an SQLite database. It answers with each text as
soon as that is found: a line of JSON with `kind`, `member` and `size`, and then as many bytes of text. After the last,
`kind` is ``"end"``.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import warnings
from collections import Counter
from functools import partial
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from rlm_kernel.documents import archives, confinement, formats, kinds, tables
from rlm_kernel.documents.found import LOG_NOT_READ, MAX_MEMBERS, MAX_NESTED, Lines, Reading, UnreadError
from rlm_kernel.errors import ConfigError, check_extra, is_installed
from rlm_kernel.installation import install_command
from rlm_kernel.untrusted import encodings
from rlm_kernel.untrusted.text_files import NotTextError, TooLargeError, join_text

_SINGLE = {**tables.KINDS, **formats.KINDS}
_PIECE = 1 << 20
_ZIPPED = frozenset({"zip", *kinds.ZIPPED.values()})


def main() -> None:
    """Answer requests until the socket is closed."""
    fd, seconds, memory = map(int, sys.argv[1:])
    for what, most in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        value = _bounded(most, resource.getrlimit(what)[1])
        resource.setrlimit(what, (value, value))
    confinement.confine()
    warnings.simplefilter("ignore")
    with socket.socket(fileno=fd) as host:
        while request := _receive(host):
            about, files = request
            used = resource.getrusage(resource.RUSAGE_SELF)
            hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
            limit = _bounded(int(used.ru_utime + used.ru_stime) + seconds + 1, hard)
            resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))
            _answer(host, files, about["name"], about["room"])
            for file in files:
                file.close()


def _bounded(value: int, hard: int) -> int:
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def _receive(host: socket.socket) -> tuple[dict[str, Any], list[BinaryIO]] | None:
    """The next request; None when there is none."""
    line, fds, _, _ = socket.recv_fds(host, 1 << 16, 2)
    while line and not line.endswith(b"\n"):
        more = host.recv(1 << 16)
        line = line + more if more else b""
    if not line:
        return None
    os.lseek(fds[0], 0, os.SEEK_SET)
    return json.loads(line), [os.fdopen(fd, "rb") for fd in fds]


def _answer(host: socket.socket, files: list[BinaryIO], name: str, room: int) -> None:
    def tell(kind: str, member: str, text: str) -> None:
        body = text.encode("utf-8", "surrogatepass")
        head = json.dumps({"kind": kind, "member": member, "size": len(body)})
        host.sendall(head.encode("ascii") + b"\n" + body)

    try:
        file = tables.with_wal(*files) if len(files) > 1 else files[0]
        _read(file, name, "", Reading(room, tell))
    except MemoryError:
        tell("unread", "", "it needs too much memory")
    except Exception as error:  # noqa: BLE001 (whatever a parser raises: the file is not read)
        tell("unread", "", _reason(error))
    tell("end", "", "")


def _reason(error: Exception) -> str:
    if isinstance(error, UnreadError | ConfigError):
        return str(error).rstrip(".")
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, TooLargeError):
        return f"its text has more than {error.size - 1:,} bytes"
    return f"it is damaged ({type(error).__name__}: {str(error)[:200]})"


def _read(file: BinaryIO, name: str, member: str, reading: Reading, depth: int = 0) -> None:
    """Read one file, which may be a member of another one."""
    kind = _kind(file, name)
    if kind == "compressed":
        inner = PurePosixPath(name)
        inner_name = inner.stem + ".tar" * (inner.suffix == ".tgz")
        _read(archives.compressed(file, member, reading), inner_name, member, reading, depth)
        return
    if source := _source_note(kind):
        _plain(file, member, reading)
        reading.tell("notes", member, source)
    elif kind in _SINGLE:
        _document(file, kind, member, reading)
        file.seek(0)
    elif kind == kinds.TEXT:
        _plain(file, member, reading)
    elif kind not in archives.KINDS and PurePosixPath(name).suffix.lower() in kinds.ZIPPED:
        raise UnreadError("it needs a password")  # which puts a document of today into a file of the old kind
    elif kind not in archives.KINDS:
        saved = ".eml" if kind == "outlook" else ".docx, .xlsx, .pptx or .pdf"
        raise UnreadError(f"it is {kinds.NAMES[kind]}: save it as {saved}")
    if kind in archives.KINDS:
        _members(file, kind, member, reading, depth)


def _source_note(kind: str) -> str:
    """What to say about a file of which the source is given; empty: it is read."""
    if kind == "html" and not is_installed("markitdown"):
        return f"the source of the page: to read its text, {install_command('files')}"
    return "the source of a rich text document: save it as .docx to read its text" if kind == "rich" else ""


def _kind(file: BinaryIO, name: str) -> str:
    head = file.read(kinds.HEAD_BYTES)
    file.seek(0)
    kind = kinds.kind_of(name, head)
    if kind in _ZIPPED and not name.lower().endswith(".zip"):  # the name may be wrong
        found = archives.zip_kind(file)
        kind = found if kind == "zip" or found != "zip" else kind
        file.seek(0)
    return kind


def _document(file: BinaryIO, kind: str, member: str, reading: Reading) -> None:
    read, modules = _SINGLE[kind]
    for module in modules:
        check_extra(f"Reading {kinds.NAMES[kind]}", module, "files")
    lines = Lines(reading.room, partial(reading.tell, "pieces", member))
    try:
        note = read(file, lines)
    except (UnreadError, MemoryError, RecursionError):
        raise
    except Exception as error:
        raise UnreadError(f"it is no whole {kinds.NAMES[kind].split(' ', 1)[1]} ({type(error).__name__})") from error
    else:
        reading.tell("whole" if lines.is_replaced else "texts", member, lines.rest())
        if note:
            reading.tell("notes", member, note)
    finally:
        if rest := lines.rest():
            reading.tell("pieces", member, rest)
        reading.room = lines.room


def _plain(file: BinaryIO, member: str, reading: Reading) -> None:
    try:
        text = join_text(iter(lambda: file.read(_PIECE), b""), reading.room)
    except NotTextError:
        raise UnreadError("binary") from None
    if note := encodings.note(text.encoding):
        reading.tell("notes", member, note)
    reading.room -= len(text.text)
    reading.tell("texts", member, text.text)


def _members(file: BinaryIO, kind: str, member: str, reading: Reading, depth: int) -> None:
    if depth == MAX_NESTED:
        raise UnreadError(f"archives are read {MAX_NESTED} levels deep")
    names: Counter[str] = Counter()
    for given, content in archives.KINDS[kind](file, reading):
        name = _numbered(given, names)
        path = f"{member}/{name}" if member else name
        reading.members -= 1
        if reading.members < 0:
            raise UnreadError(f"it holds more than {MAX_MEMBERS:,} files")
        if isinstance(content, str):
            reading.tell("unread", path, content)
            continue
        if tables.is_wal(name, content):
            reading.tell("unread", path, "the write-ahead log of a database in an archive")
            reading.tell("notes", path.removesuffix("-wal"), LOG_NOT_READ)
            continue
        try:
            _read(content, name, path, reading, depth + 1)
        except MemoryError:
            reading.tell("unread", path, "it needs too much memory")
        except Exception as error:  # noqa: BLE001 (as above)
            reading.tell("unread", path, _reason(error))


def _numbered(name: str, names: Counter[str]) -> str:
    """The name of a member; with a number from the second of the same name on."""
    names[name] += 1
    if (number := names[name]) == 1:
        return name
    path = PurePosixPath(name)
    return _numbered(str(path.with_name(f"{path.stem} ({number}){path.suffix}")), names)


if __name__ == "__main__":
    main()
