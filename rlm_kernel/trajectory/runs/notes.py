"""What people say about runs: tags, a note, a thumb up or down. They are kept in a file beside the logs.

The file only grows, by one line for each change, so that two writers lose nothing and a killed one at most its last
line. A line names the run and what changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rlm_kernel.errors import ConfigError
from rlm_kernel.text import clip_end
from rlm_kernel.trajectory.log.file_names import stem_of
from rlm_kernel.trajectory.log.reader import log_of
from rlm_kernel.trajectory.runs.summary import parse_lines
from rlm_kernel.untrusted.json_text import read_file

NOTES = "rlm-runs.notes"
"""The name of the file of a folder."""

Thumb = Literal["up", "down"]
THUMBS = get_args(Thumb)

MAX_TAG = 60
MAX_TAGS = 50
MAX_NOTE = 4_000
"""Characters."""
_MAX_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Notes:
    """What people say about a run."""

    tags: tuple[str, ...] = ()
    note: str = ""
    thumb: Thumb | None = None


def read_notes(folder: Path) -> dict[str, Notes]:
    """The notes of a folder by the name of the run, without the ending of its files. A missing file has none."""
    try:
        content = read_file(folder / NOTES, _MAX_BYTES)
    except (OSError, ValueError):
        return {}
    found: dict[str, Notes] = {}
    for line in parse_lines(content.splitlines()):
        run = line.get("run")
        if isinstance(run, str):
            found[run] = _changed(found.get(run, Notes()), line)
    return found


def annotate(
    log: str | os.PathLike[str],
    *,
    add_tags: Iterable[str] = (),
    remove_tags: Iterable[str] = (),
    note: str | None = None,
    thumb: Literal["up", "down", "none"] | None = None,
) -> Notes:
    """Change the tags, the note or the thumb of a run. Returns all of them.

    Args:
        log: the log of the run, or its notebook.
        add_tags: one line of at most 60 characters each.
        remove_tags: those that the run has no more.
        note: replaces the note; empty: there is none.
        thumb: ``"up"``, ``"down"`` or ``"none"``.

    Raises:
        ConfigError: a tag, the note or the thumb cannot be; or the file of the notes cannot be written.
        RecordingError: there is no such log.
    """
    path = log_of(Path(log))
    line: dict[str, Any] = {"run": stem_of(path)}
    if added := [_tag(tag) for tag in _listed("add_tags", add_tags)]:
        line["add_tags"] = added
    if removed := _listed("remove_tags", remove_tags):
        line["remove_tags"] = removed
    if note is not None:
        line["note"] = _note(note)
    if thumb is not None:
        line["thumb"] = _thumb(thumb)
    if len(line) > 1:
        _check_count(read_notes(path.parent).get(stem_of(path), Notes()), line)
        _append(path.parent / NOTES, line)
    return read_notes(path.parent).get(stem_of(path), Notes())


def _listed(name: str, tags: Iterable[str]) -> list[str]:
    if isinstance(tags, str):
        raise ConfigError(f"{name} takes several tags: give {name}=[{clip_end(tags, MAX_TAG)!r}].")
    return list(tags)


def _check_count(notes: Notes, line: dict[str, Any]) -> None:
    tags = {*notes.tags} - {*line.get("remove_tags", ())} | {*line.get("add_tags", ())}
    if len(tags) > MAX_TAGS:
        raise ConfigError(f"A run has at most {MAX_TAGS} tags: remove some first.")


def _append(path: Path, line: dict[str, Any]) -> None:
    """Add a line in one call of the system, so that writers do not mix."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            cut = file.seek(0, os.SEEK_END) > 0 and os.pread(descriptor, 1, file.tell() - 1) != b"\n"
            file.write(b"\n" * cut + json.dumps(line).encode("ascii") + b"\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error


def _changed(notes: Notes, line: dict[str, Any]) -> Notes:
    """The notes after a line, whose fields may have any type."""
    removed = {*_texts(line.get("remove_tags"))}
    tags = [tag for tag in notes.tags if tag not in removed]
    tags += [tag for tag in _texts(line.get("add_tags")) if tag not in tags and len(tag) <= MAX_TAG]
    changed = replace(notes, tags=tuple(dict.fromkeys(tags))[:MAX_TAGS])
    if isinstance(line.get("note"), str):
        changed = replace(changed, note=line["note"][:MAX_NOTE])
    if line.get("thumb") in (*THUMBS, "none"):
        changed = replace(changed, thumb=None if line["thumb"] == "none" else line["thumb"])
    return changed


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _tag(tag: Any) -> str:
    text = tag.strip() if isinstance(tag, str) else ""
    if not text.isprintable() or not 0 < len(text) <= MAX_TAG:
        shown = clip_end(repr(tag), MAX_TAG)
        raise ConfigError(f"{shown} is not a tag: give one line of at most {MAX_TAG} characters.")
    return text


def _note(note: Any) -> str:
    if not isinstance(note, str) or len(note) > MAX_NOTE:
        raise ConfigError(f"A note is a text of at most {MAX_NOTE:,} characters.")
    return note


def _thumb(thumb: Any) -> str:
    if thumb not in (*THUMBS, "none"):
        raise ConfigError(f"{thumb!r} is not a thumb: give 'up', 'down' or 'none'.")
    return str(thumb)
