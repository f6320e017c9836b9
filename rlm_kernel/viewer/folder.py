"""The logs of one folder: the only files that the viewer's server serves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rlm_kernel.errors import ConfigError
from rlm_kernel.trajectory.log import FOLDER
from rlm_kernel.trajectory.log.file_names import record_beside
from rlm_kernel.trajectory.log.reader import check_is_log, log_of
from rlm_kernel.viewer.summary import Summary, summary_of

DEFAULT_FOLDERS = (FOLDER, "logs")
"""Where runs are logged: by the command line, and in the examples of the documentation."""

MAX_RUNS = 500
"""How many runs the list shows."""


class Folder:
    """The `.jsonl` files of a folder.

    Args:
        path: the folder.
        only: the one file of it that is shown, or None for all.
    """

    def __init__(self, path: Path, only: str | None = None) -> None:
        self.path = path
        self.only = only
        self._summaries: dict[tuple[str, int, int], Summary] = {}

    def logs(self) -> list[Path]:
        """The logs. A link that leads out of the folder is not one."""
        return [file for file in self._named() if self._is_log(file)]

    def log(self, name: str) -> Path | None:
        """The log of this name, or None. The name is compared with those in the folder, and never made into a path."""
        return next((file for file in self._named() if file.name == name and self._is_log(file)), None)

    def summaries(self, limit: int = MAX_RUNS) -> list[Summary]:
        """What the list of runs shows: the latest ones, the newest first."""
        found = []
        for file in sorted(self.logs(), key=_modification_time, reverse=True)[:limit]:
            with contextlib.suppress(FileNotFoundError):  # it was deleted meanwhile
                found.append(self._summary(file))
        return found

    def _named(self) -> Iterator[Path]:
        """The records. The turns of a run that are in a file of their own are not a log of their own."""
        found = (file for file in self.path.glob("*.jsonl") if self.only in (None, file.name))
        return (file for file in found if record_beside(file) == file)

    def _is_log(self, file: Path) -> bool:
        return file.is_file() and file.resolve().parent == self.path.resolve()

    def _summary(self, path: Path) -> Summary:
        stat = path.stat()
        key = (path.name, stat.st_size, stat.st_mtime_ns)
        if key not in self._summaries or self._summaries[key].state == "running":
            try:
                self._summaries[key] = summary_of(path)
            except FileNotFoundError:
                raise
            except OSError as error:
                why = f"It cannot be read: {error.strerror}"
                return Summary(path.name, stat.st_size, stat.st_mtime, "lost", error=why)
        return self._summaries[key]


def folder_of(given: str | None) -> Folder:
    """The folder that is meant: a folder, the folder of a log, or where runs usually are.

    Raises:
        ConfigError: there is none.
        RecordingError: it is a file that is neither a log nor a notebook with one.
    """
    if given is None:
        usual = next((Path(name) for name in DEFAULT_FOLDERS if Path(name).is_dir()), None)
        if usual is None:
            raise ConfigError(
                f"There is no folder ./{' or ./'.join(DEFAULT_FOLDERS)} here: run `rlm run` first, or name a folder "
                "or a log: `rlm view PATH`."
            )
        return Folder(usual)
    path = Path(given)
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise ConfigError(f"There is no folder or log {given!r}: name the folder that RLMLogger(log_dir=…) writes to.")
    log = log_of(path)
    check_is_log(log)
    return Folder(log.parent, log.name)


def _modification_time(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0
