"""The logs of one folder: the only files that the viewer's server serves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlencode

from rlm_kernel.errors import ConfigError
from rlm_kernel.trajectory.log.reader import check_is_log, log_of
from rlm_kernel.trajectory.runs.index import Index, logs_in, usual_folder
from rlm_kernel.trajectory.runs.notes import read_notes
from rlm_kernel.trajectory.runs.query import Run, runs_with_notes
from rlm_kernel.trajectory.runs.summary import Summary

_NOT_UNICODE = re.compile("[\ud800-\udfff]")
MAX_RUNS = 100_000
"""How many runs the list holds."""


class Folder:
    """The `.jsonl` files of a folder.

    Args:
        path: the folder.
        only: the one file of it that is shown, or None for all.
    """

    def __init__(self, path: Path, only: str | None = None) -> None:
        self.path = path
        self.only = only
        self._index = Index(path)

    @property
    def fragment(self) -> str:
        """What the page shows first, as the fragment of its address; empty: the list."""
        return f"#{quote(self.only)}" if self.only else ""

    def logs(self) -> list[Path]:
        """The logs. A link that leads out of the folder is not one."""
        return [log.path for log in logs_in(self.path, self.only)]

    def log(self, name: str) -> Path | None:
        """The log of this name, or None. The name is compared with those in the folder, and never made into a path.

        A page can only ask for Unicode: what is none in a name is U+FFFD there.
        """
        return next((log for log in self.logs() if _NOT_UNICODE.sub("\ufffd", log.name) == name), None)

    def summaries(self, limit: int = MAX_RUNS) -> list[Summary]:
        """What the list of runs shows: the latest ones, the newest first."""
        return self._index.summaries(self.only)[:limit]

    def runs(self) -> list[Run]:
        """The same with what people say about them."""
        return runs_with_notes(self.summaries(), read_notes(self.path))


class Pair(Folder):
    """Two logs of any folders, which are shown side by side.

    Args:
        left, right: the logs.
        children: for each of them, the steps to the child that is shown; by default the run itself.
    """

    def __init__(self, left: Path, right: Path, children: tuple[Sequence[str], Sequence[str]] = ((), ())) -> None:
        super().__init__(left.parent)
        self._children = children
        self._names = _names(left, right)
        folders = [Folder(log.parent, log.name) for log in (left, right)]
        self._folders = dict(zip(self._names, folders, strict=True))

    @property
    def fragment(self) -> str:
        """Both, side by side."""
        left, right = self._names
        ours, theirs = self._children
        steps = [*(("child", step) for step in ours), ("with", right), *(("with-child", step) for step in theirs)]
        return f"#{quote(left, safe='')}?{urlencode(steps)}"

    def logs(self) -> list[Path]:
        """Both."""
        return [log for folder in self._folders.values() for log in folder.logs()]

    def log(self, name: str) -> Path | None:
        """One of them, or None."""
        folder = self._folders.get(name)
        return folder.log(folder.only or "") if folder else None

    def runs(self) -> list[Run]:
        """Both, each with the notes of its folder."""
        found = [(name, run) for name, folder in self._folders.items() for run in folder.runs()]
        return [replace(run, summary=replace(run.summary, name=name)) for name, run in found]


def _names(left: Path, right: Path) -> tuple[str, str]:
    """The names of the files, with as many of their folders as are needed to tell them apart."""
    if left == right:
        return left.name, right.name
    count = 1
    while left.parts[-count:] == right.parts[-count:]:
        count += 1
    return "/".join(left.parts[-count:]), "/".join(right.parts[-count:])


def folder_of(given: str | None) -> Folder:
    """The folder that is meant: a folder, the folder of a log, or where runs usually are.

    Raises:
        ConfigError: there is none.
        RecordingError: it is a file that is neither a log nor a notebook with one.
    """
    if given is None:
        return Folder(usual_folder())
    path = Path(given)
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise ConfigError(f"There is no folder or log {given!r}: name the folder that RLMLogger(log_dir=…) writes to.")
    log = log_of(path)
    check_is_log(log)
    return Folder(log.parent, log.name)
