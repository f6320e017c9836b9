"""The logs of one folder: the only files that the viewer's server serves."""

from __future__ import annotations

from pathlib import Path

from rlm_kernel.errors import ConfigError
from rlm_kernel.trajectory.log.reader import check_is_log, log_of
from rlm_kernel.trajectory.runs.index import Index, logs_in, usual_folder
from rlm_kernel.trajectory.runs.summary import Summary

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

    def logs(self) -> list[Path]:
        """The logs. A link that leads out of the folder is not one."""
        return [log.path for log in logs_in(self.path, self.only)]

    def log(self, name: str) -> Path | None:
        """The log of this name, or None. The name is compared with those in the folder, and never made into a path."""
        return next((log for log in self.logs() if log.name == name), None)

    def summaries(self, limit: int = MAX_RUNS) -> list[Summary]:
        """What the list of runs shows: the latest ones, the newest first."""
        return self._index.summaries(self.only)[:limit]


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
