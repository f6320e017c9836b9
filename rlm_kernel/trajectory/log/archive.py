"""All files of a run in one ZIP archive: what a replay, a resume and the viewer read."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

from rlm_kernel.errors import RecordingError
from rlm_kernel.text import join_text
from rlm_kernel.trajectory.log.file_names import RECORD, TURNS, file_beside, record_beside

MAX_BYTES = 1 << 32
"""Of all files of an archive that is unpacked."""

TAG = "rlm-bundle"
"""Of the notebook's cell that holds an archive."""
ASSIGNED = 'rlm_bundle = rlm_unpack("""\n{}""")'
"""The statement of this cell, with the archive in base64."""

_HELD = re.compile(r"([A-Za-z0-9+/=\n]*+)".join(map(re.escape, ASSIGNED.split("{}"))))
_STORED = re.compile(rb'"((?:contexts|prompts|images)/[0-9a-f]{64}\.[a-z]{1,8})"')
"""The name of a file in a line of a log."""
_MAX_PARTS = 2
_ADDED = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
MAX_RATIO = 200
"""How many times larger than the archive its files may be."""
_FREE_RATIO = 100_000_000
"""Bytes that they may have whatever the size of the archive."""
_MAX_FIRST = 1 << 22


def files_of(log: Path) -> dict[str, Path]:
    """The files of a run and of the earlier runs in its kernel, by their names in the folder of the log.

    Args:
        log: the record.

    Raises:
        OSError: a log cannot be read.
    """
    files = {}
    for record in _records(log):
        for path in (file_beside(record, RECORD), file_beside(record, TURNS)):
            if path.is_file():
                files[path.name] = path
        with record.open("rb") as lines:
            stored = {name.decode("ascii") for line in lines for name in _STORED.findall(line)}
        files |= {name: log.parent / name for name in sorted(stored) if (log.parent / name).is_file()}
    return files


def _records(log: Path) -> Iterator[Path]:
    """The record, and those of the earlier runs in the same kernel."""
    seen: set[Path] = set()
    while log not in seen and log.is_file():
        seen.add(log)
        yield log
        with log.open("rb") as file:
            first = file.readline(_MAX_FIRST)
        name = json.loads(first).get("continues") if first.endswith(b"\n") else None
        if not isinstance(name, str) or PurePosixPath(name).name != name:
            return
        log = record_beside(log.with_name(f"{name}{TURNS}"))


def write(file: IO[bytes], files: Mapping[str, Path], made: Mapping[str, bytes]) -> None:
    """Write an archive.

    Args:
        file: where it is written.
        files: by their names in the archive; the first one is the record of the run.
        made: further files, whose content is given.

    Raises:
        OSError: a file cannot be read or written.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files.items():
            archive.write(path, name)
        for name, content in made.items():
            archive.writestr(name, content)


def held_in(notebook: Mapping[str, Any]) -> bytes | None:
    """The archive in a notebook, as its JSON has it; None: it holds none.

    Raises:
        KeyError, TypeError, ValueError: it is not a notebook, or the archive was altered.
    """
    for cell in notebook["cells"]:
        if TAG in cell["metadata"].get("tags", ()) and (found := _HELD.search(join_text(cell["source"]))):
            return base64.b64decode(found[1])
    return None


def unpack(content: bytes) -> Path:
    """The record in an archive. Its files are in a temporary folder until this process ends.

    The archive may have been packed again by a person: folders, and what an operating system adds, are left out.

    Raises:
        RecordingError: it is not an archive of a run.
        OSError: it could not be written.
    """
    top = Path(_folder().name)
    folder = top / hashlib.sha256(content).hexdigest()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [entry for entry in archive.infolist() if not _is_added(entry)]
            _check(entries, len(content))
            if not folder.is_dir():
                _extract(archive, entries, top, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise RecordingError(f"It is not a ZIP archive that can be read: {error}") from error
    return _record_of([folder / entry.filename for entry in entries])


def _is_added(entry: zipfile.ZipInfo) -> bool:
    """Whether it is a folder, or what macOS and Windows add."""
    return entry.is_dir() or entry.filename.startswith("__MACOSX/") or PurePosixPath(entry.filename).name in _ADDED


def _check(entries: Sequence[zipfile.ZipInfo], size: int) -> None:
    if not all(_is_name(entry.filename) for entry in entries):
        raise RecordingError("The archive holds files that are not of a run.")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > MAX_BYTES or unpacked > max(MAX_RATIO * size, _FREE_RATIO):
        raise RecordingError(
            f"The files in the archive have {unpacked:,} bytes, more than a run of this size can have."
        )


def _is_name(name: str) -> bool:
    """Whether a file of a run may be called so: beside the log, or in a folder there."""
    parts = name.split("/")
    plain = all(part.isprintable() and not part.startswith(".") and part.strip() == part for part in parts)
    return len(parts) <= _MAX_PARTS and all(parts) and plain and "\\" not in name


def _extract(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo], top: Path, folder: Path) -> None:
    """Unpack into a folder that has its name only when it is whole."""
    with tempfile.TemporaryDirectory(dir=top) as part:
        archive.extractall(part, entries)
        Path(part).rename(folder)
        Path(part).mkdir()  # to be removed in its place


def _record_of(files: Sequence[Path]) -> Path:
    """The record of the run: not of one before it in its kernel, whatever the order of the files."""
    for ending in (RECORD, TURNS):
        if found := [path for path in files if path.name.endswith(ending)]:
            before = {earlier for path in found for earlier in list(_records(path))[1:]}
            return next((path for path in found if path not in before), found[0])
    raise RecordingError("The archive holds no log of a run.")


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="rlm-bundle-")
