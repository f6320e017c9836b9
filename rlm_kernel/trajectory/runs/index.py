"""The summaries of a folder's logs, and the index that keeps them in a file beside the logs.

The index is a cache: a log is read again when its size or its time differs from the entry, so the index may be missing,
damaged or old. It is replaced as a whole: of two writers, the last one wins, and a killed one leaves the old file.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rlm_kernel.errors import ConfigError
from rlm_kernel.trajectory.log import FOLDER
from rlm_kernel.trajectory.log.atomic_files import write_whole
from rlm_kernel.trajectory.log.file_names import RECORD, TURNS
from rlm_kernel.trajectory.log.jsonl import reader_of
from rlm_kernel.trajectory.runs.summary import MAX_NUMBER, Summary, is_time, summary_of
from rlm_kernel.trajectory.states import state_without_end
from rlm_kernel.untrusted.json_text import read_file

INDEX = "rlm-runs.index"
"""The name of the index of a folder."""

DEFAULT_FOLDERS = (FOLDER, "logs")
"""Where runs are logged: by the command line, and in the examples of the documentation."""

_VERSION = 1
_MAX_BYTES = 1 << 28
_SAVED_AT_ONCE = 2_000
_FIELDS = tuple(field.name for field in fields(Summary))

Entries = dict[str, tuple[int, Summary]]
"""By the name of the log: its modification time in nanoseconds, and its summary."""


@dataclass(frozen=True, slots=True)
class Log:
    """A log in a folder, as the file system describes it."""

    path: Path
    size: int
    modified_ns: int


def usual_folder() -> Path:
    """The folder that is meant when none is given.

    Raises:
        ConfigError: there is none.
    """
    for name in DEFAULT_FOLDERS:
        if Path(name).is_dir():
            return Path(name)
    raise ConfigError(
        f"There is no folder ./{' or ./'.join(DEFAULT_FOLDERS)} here: run `rlm run` first, or name a folder of logs."
    )


def logs_in(folder: Path, only: str | None = None) -> list[Log]:
    """The logs of a folder, the newest first.

    A link that leads out of the folder is not one. The turns of a run that has a record are not a log of their own.

    Args:
        folder: where they are.
        only: the name of the one file that is meant, or None for all.
    """
    with os.scandir(folder) as found:
        entries = {entry.name: entry for entry in found if entry.name.endswith(TURNS)}
    records = {name.removesuffix(RECORD) + TURNS for name in entries if name.endswith(RECORD)}
    named = (entry for name, entry in entries.items() if name not in records and only in (None, name))
    return sorted(_logs(named, folder), key=lambda log: log.modified_ns, reverse=True)


def _logs(entries: Iterator[os.DirEntry[str]], folder: Path) -> Iterator[Log]:
    for entry in entries:
        with suppress(OSError):  # it was removed meanwhile
            path = folder / entry.name
            if entry.is_file() and (not entry.is_symlink() or path.resolve().parent == folder.resolve()):
                stat = entry.stat()
                yield Log(path, stat.st_size, stat.st_mtime_ns)


class Index:
    """The summaries of the logs in a folder. Safe to use from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._entries: Entries | None = None

    def summaries(self, only: str | None = None) -> list[Summary]:
        """The summaries, the log that changed last first. `only`: see `logs_in`.

        Raises:
            OSError: the folder cannot be read.
        """
        logs = logs_in(self._folder, only)
        with self._lock:
            if self._entries is None:
                self._entries = _load(self._folder / INDEX)
            if only is None:
                there = {log.path.name for log in logs}
                self._entries = {name: entry for name, entry in self._entries.items() if name in there}
            return [_current(one) for one in self._summaries(logs, self._entries)]

    def _summaries(self, logs: list[Log], entries: Entries) -> list[Summary]:
        """The summaries, after the new ones were added to the entries and saved."""
        found, fresh = [], 0
        for log in logs:
            if _is_new(log, entries.get(log.path.name)):
                try:
                    summary = summary_of(log.path)
                except OSError as error:
                    found.append(_unreadable(log, error))
                    continue
                entries[log.path.name] = log.modified_ns, summary
                fresh += summary.state != "running"  # that will change again
                fresh = self._save(entries) if fresh >= _SAVED_AT_ONCE else fresh
            found.append(entries[log.path.name][1])
        if fresh:
            self._save(entries)
        return found

    def _save(self, entries: Entries) -> int:
        """Write the index; a folder that cannot be written to has none. Returns 0, the entries that are not saved."""
        runs = {name: [time, {key: getattr(one, key) for key in _FIELDS}] for name, (time, one) in entries.items()}
        with suppress(OSError):
            write_whole(self._folder / INDEX, json.dumps({"version": _VERSION, "runs": runs}).encode("ascii"))
        return 0


def _is_new(log: Log, entry: tuple[int, Summary] | None) -> bool:
    return entry is None or entry[0] != log.modified_ns or entry[1].size != log.size


def _unreadable(log: Log, error: OSError) -> Summary:
    why = f"It cannot be read: {error.strerror}"
    return Summary(log.path.name, log.size, log.modified_ns / 1e9, "lost", error=why)


def _current(summary: Summary) -> Summary:
    """The summary with the state of now: a run without an end is lost after a while."""
    if summary.state not in ("running", "lost"):
        return summary
    return replace(summary, state=state_without_end(summary.modified))


def _load(path: Path) -> Entries:
    """The entries of an index; empty if it is missing, damaged or of another version."""
    try:
        content = json.loads(read_file(path, _MAX_BYTES))
        if content["version"] != _VERSION:
            return {}
        entries: Entries = reader_of(Entries).validate_python(content["runs"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {name: entry for name, entry in entries.items() if entry[1].name == name and _is_plausible(entry[1])}


def _is_plausible(summary: Summary) -> bool:
    """Whether all numbers are figures: the index may be damaged, or made to break its readers."""
    if not (is_time(summary.modified) and is_time(summary.began)):
        return False
    numbers: list[Any] = [summary.size]
    numbers += [summary.seconds, summary.tokens, summary.cost, summary.turns, summary.calls]
    return all(number is None or abs(number) < MAX_NUMBER for number in numbers)
