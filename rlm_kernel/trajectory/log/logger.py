"""`RLMLogger`: write each completion to a log and a notebook."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import __version__
from rlm_kernel.errors import ConfigError, RecordingError
from rlm_kernel.text import clip_end
from rlm_kernel.trajectory.events import Event, IterationFinished, OnEvent, RunFinished, RunStarted
from rlm_kernel.trajectory.log import FOLDER, jsonl, reference_format, signature
from rlm_kernel.trajectory.log.file_names import MAX_READ, NOTEBOOK, TURNS, file_beside, new_name
from rlm_kernel.trajectory.log.line_file import LineFile
from rlm_kernel.trajectory.log.quota import MIN_BYTES, USUAL_BYTES, Quota
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.trajectory.log.redaction import Redactor, redactor_of, without_secrets
from rlm_kernel.trajectory.log.writer import LogWriter
from rlm_kernel.trajectory.tree import Trajectory
from rlm_kernel.types import LoggedTrajectory, StoredTrajectory

if TYPE_CHECKING:
    from rlm_kernel.trajectory.log.iterations import RLMIteration, RLMMetadata
    from rlm_kernel.trajectory.notebook.autosave import NotebookAutosave

MAX_REMEMBERED_BYTES = 8_000_000
"""Of a log whose run is kept in memory too. The record of a longer run is read from its log when it is used."""


class RLMLogger:
    """Writes the log of each completion, and a notebook.

    `{file_name}_{words}_{date}_{time}_{8 hex}.jsonl` holds the turns in the documented format, `….events.jsonl` beside
    it all events, and `….ipynb` is the notebook. Each of the three names stands for the run. The words are the first of
    the question; a name that was read before its run began has none.

    One logger may serve many completions, also at once. A subclass may have a `log` of its own: it is called with each
    turn, in a thread, and the next turn waits for it. What it raises ends the run.

    Args:
        log_dir: the folder, made when needed; None: nothing is written, and `completion.metadata` is all there is.
        file_name: how the names begin.
        notebook: whether to write the notebook, too.
        max_log_bytes: limit for the files of one completion together: log, notebooks (also of children), input, large
            prompts and pictures. The replay code that the notebooks of a folder share (53 kB) does not count. A run
            that reaches the limit continues, and its log is clipped from there. None: no limit.

    Raises:
        ConfigError: `file_name` is not a file name, or `max_log_bytes` is too small.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        file_name: str = "rlm",
        *,
        notebook: bool = True,
        max_log_bytes: int | None = USUAL_BYTES,
    ) -> None:
        if not isinstance(file_name, str) or not file_name.strip(".") or Path(file_name).name != file_name:
            raise ConfigError(f"file_name must be how a file's name begins, such as 'rlm', not {file_name!r}.")
        if max_log_bytes is not None and (
            not isinstance(max_log_bytes, int) or isinstance(max_log_bytes, bool) or max_log_bytes < MIN_BYTES
        ):
            raise ConfigError(f"max_log_bytes is a number of bytes from {MIN_BYTES:,}, or None, not {max_log_bytes!r}.")
        self.log_dir = None if log_dir is None else Path(log_dir)
        self._file_name = file_name
        self._next: dict[int, str] = {}  # by process: one that was forked has another next run
        self._paths: tuple[str | None, str | None] | None = None
        self._notebook = notebook
        self._max_log_bytes = max_log_bytes
        self._latest: RunLog | None = None
        self._metadata: RLMMetadata | None = None
        self._logged: list[RLMIteration] = []

    def __repr__(self) -> str:
        return f"RLMLogger(log_dir={str(self.log_dir) if self.log_dir else None!r}, file_name={self._file_name!r})"

    @property
    def log_file_path(self) -> str | None:
        """Of the turns of the latest completion, and before there is one, of the first. None: not written."""
        return self.next_log_file_path if self._paths is None else self._paths[0]

    @property
    def notebook_path(self) -> str | None:
        """Of the notebook of the latest completion, in the same way."""
        if self._paths is not None:
            return self._paths[1]
        path = self.next_log_file_path
        return str(file_beside(Path(path), NOTEBOOK)) if path and self._notebook else None

    @property
    def next_log_file_path(self) -> str | None:
        """Of the turns of the completion that starts next, in this process. None: nothing is written."""
        if self.log_dir is None:
            return None
        return str(self._path(self._next.setdefault(os.getpid(), new_name(self._file_name))))

    def get_trajectory(self) -> dict[str, Any] | None:
        """The latest completion so far, as `completion.metadata` holds it; None before there is one.

        Without a run it is what `log_metadata` and `log` were given.
        """
        if self._latest is not None:
            return self._latest.metadata()
        turns = [{"iteration": n, **turn.to_dict()} for n, turn in enumerate(self._logged, 1)]
        return None if self._metadata is None else {"run_metadata": self._metadata.to_dict(), "iterations": turns}

    def log_metadata(self, metadata: RLMMetadata) -> None:
        """Take the arguments of an `RLM`, of the first if there are several. An `RLM` calls it when it is made."""
        self._metadata = self._metadata or metadata

    def log(self, iteration: RLMIteration) -> None:
        """Take a turn. A run calls it only if a subclass has another one; the files are written in any case."""
        self._logged.append(iteration)

    def clear_iterations(self) -> None:
        """Forget the turns of the completion before. A run calls it first."""
        self._logged.clear()

    @property
    def iteration_count(self) -> int:
        """The turns of the latest completion until now."""
        return len(self._logged) or (0 if self._latest is None else self._latest.turns)

    def start(
        self,
        configuration: Mapping[str, Any],
        keys: Iterable[str] = (),
        forked_from: Mapping[str, Any] | None = None,
        continues: str | None = None,
        agent: Mapping[str, Any] | None = None,
        question: str = "",
    ) -> RunLog:
        """Begin the log of a completion. If the folder cannot be written, it warns once and the run continues.

        Args:
            configuration: the arguments of the `RLM`, as plain data.
            keys: secrets that may be in no line.
            forked_from: the run that this one resumes.
            continues: the run whose kernel this one uses, of a persistent `RLM`.
            agent: about the agent whose conversation it is, or None.
            question: for the names of the files.
        """
        redact = redactor_of(configuration, keys)
        shown = without_secrets(configuration)
        words = redact(clip_end(question, MAX_READ))
        stem = self._next.pop(os.getpid(), None) or new_name(self._file_name, words)
        about = {
            **reference_format.metadata(shown, ""),
            "log_schema": jsonl.SCHEMA,
            "run_id": stem,
            "timestamp": datetime.now().astimezone().isoformat(timespec="milliseconds"),
            "version": __version__,
            "configuration": shown,
            "forked_from": forked_from,
            "continues": continues,
            **({} if agent is None else {"agent": dict(agent)}),
        }
        del about["root_model"]  # the run's own events name it
        log = self._latest = RunLog(about, redact)
        if self.log_dir is not None:
            self._write_files(log, self._path(stem))
        return log

    def _path(self, name: str) -> Path:
        return Path(self.log_dir or "").absolute() / f"{name}{TURNS}"

    def _write_files(self, log: RunLog, path: Path) -> None:
        self._paths = None, None
        quota = Quota(self._max_log_bytes)
        try:
            _make(path.parent)
            log.add(LogWriter(path, log.about, log.redact, quota=quota, key=_key(log), tell=log.tell))
        except OSError as error:
            warnings.warn(f"The run is not logged: {error}. It continues.", RuntimeWarning, stacklevel=2)
            return
        self._paths = str(path), None
        if self._notebook:
            from rlm_kernel.trajectory.notebook.autosave import NotebookAutosave

            notebook = file_beside(path, NOTEBOOK)
            log.add(NotebookAutosave(notebook, log.about, log.redact, quota=quota))
            self._paths = str(path), str(notebook)


def _read(record: LineFile, about: Mapping[str, Any]) -> dict[str, Any]:
    """The run in a record of this process.

    Raises:
        RecordingError: the record is gone, or is not as it was written.
    """
    try:
        if record.path.is_file() and not record.is_unchanged():
            raise RecordingError(
                f"{record.path} is not as this run wrote it: another program changed, cut or replaced it. Without it, "
                "the trajectory of this run cannot be read."
            )
        return LoggedTrajectory(reference_format.trajectory(read_log(record.path).trajectory, about), str(record.path))
    except OSError as error:
        raise RecordingError(f"{record.path} cannot be read: {error}.") from error


def _key(log: RunLog) -> bytes | None:
    """The key of the user. Without a key the run is logged without a signature."""
    try:
        return signature.key()
    except OSError as error:
        log.tell(
            f"The log of this run is not signed, because there is no key of yours: {error}. A replay of it will ask "
            "whether you trust it."
        )
        return None


def _make(folder: Path) -> None:
    """Make the folder. The default one is often in a working tree, so git is told to ignore it."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if folder.name == FOLDER:
        (folder / ".gitignore").write_text("*\n", "utf-8")


class RunLog:
    """The log of one completion.

    Attributes:
        about: what the first line says besides the run.
        redact: takes secrets out of text.
        readers: of the stream of events.
        turns: how many turns have ended.
    """

    def __init__(self, about: Mapping[str, Any], redact: Redactor) -> None:
        self.about = about
        self.redact = redact
        self._run = Trajectory()
        self._log: LogWriter | None = None
        self.readers: list[OnEvent] = [self._remember]
        self.turns = 0
        self._files: list[LogWriter | NotebookAutosave] = []
        self._unreported: deque[str] = deque()

    @property
    def run_id(self) -> str:
        """The name of the run, and of its files."""
        return str(self.about["run_id"])

    def add(self, file: LogWriter | NotebookAutosave) -> None:
        """Write another file."""
        if isinstance(file, LogWriter):
            self._log = file
        self.readers.append(file)
        self._files.append(file)

    def tell(self, message: str) -> None:
        """Queue a message about the log for the user. May be called from any thread."""
        self._unreported.append(message)

    def take_untold(self) -> Iterator[str]:
        """The messages for the user since the last call."""
        while self._unreported:
            yield self._unreported.popleft()

    def metadata(self) -> dict[str, Any]:
        """The run so far, as `completion.metadata` gives it.

        Raises:
            RecordingError: the log of a long run is gone or was altered.
        """
        record = self.record()
        return record.load() if isinstance(record, StoredTrajectory) else record

    def record(self) -> dict[str, Any] | StoredTrajectory:
        """The run so far. That of a long run stays in its log until it is used."""
        about = reference_format.named(self.redact.data({"root_model": self._run.model, **self.about}))
        if self._log is not None and self._log.size > MAX_REMEMBERED_BYTES:
            return StoredTrajectory(partial(_read, self._log.record, about), str(self._log.record.path))
        content = reference_format.trajectory(self._run, about)
        if self._log is None:
            return LoggedTrajectory(content, run=self._run)
        return LoggedTrajectory(content, str(self._log.record.path))

    def close(self) -> None:
        """Wait until the files are written. Warns of those that could not be."""
        self.redact.forget()
        for file in self._files:
            try:
                file.close()
            except OSError as error:
                warnings.warn(f"{file!r} is incomplete: {error}", RuntimeWarning, stacklevel=2)
        for message in self.take_untold():
            warnings.warn(message, RuntimeWarning, stacklevel=2)

    def _remember(self, event: Event) -> None:
        self.turns += isinstance(event, IterationFinished)
        if self._log is not None and self._log.size > MAX_REMEMBERED_BYTES:
            self._run.forget()
            return
        event = self.redact.event(event)
        if isinstance(event, RunStarted):
            event = replace(event, context="")
        if not isinstance(event, RunFinished):  # the input, which is in both, may be large and is not needed
            self._run.add(event)
