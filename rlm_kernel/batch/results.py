"""The results of a batch: one JSON object a line, written as each task ends."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from rlm_kernel.errors import ConfigError, RecordingError, RLMError, check_extra
from rlm_kernel.html import cards
from rlm_kernel.html.markup import Markup
from rlm_kernel.html.prose import prose
from rlm_kernel.text import format_duration
from rlm_kernel.types import RLMChatCompletion, UsageSummary

_BEGINNING = b'{"id": "'


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What became of a task.

    Attributes:
        id: of the task.
        answer: the answer; None: there is none.
        error: why there is none, with the class of the error first; else None.
        usage: of its runs, root and sub-calls; those of earlier calls with the same file of results included.
        seconds: how long it took.
        log: the path of its log, or None. In a file it is relative to the folder of the file, if the log is in it.
        digest: of the task that was asked.
        completion: the result of the run; None if it failed, or if the result was read from a file.
    """

    id: str
    answer: str | None = None
    error: str | None = None
    usage: UsageSummary = field(default_factory=UsageSummary)
    seconds: float = 0.0
    log: str | None = None
    digest: str = ""
    completion: RLMChatCompletion | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        """The fields, long ones shortened."""
        fields = {name: getattr(self, name) for name in ("id", "answer", "error", "usage", "seconds", "log")}
        return cards.short_repr(type(self).__name__, {name: held for name, held in fields.items() if held is not None})

    def _repr_html_(self) -> Markup:
        """The answer or the error, and below it time, calls, tokens and cost."""
        said = cards.as_it_is(self.error or "No answer.") if self.answer is None else prose(self.answer)
        facts = f"{format_duration(self.seconds)} · {self.usage.facts}"
        return cards.card(cards.title(self.id), said, cards.small(facts))

    @property
    def cost(self) -> float | None:
        """US dollars; None if a part of it is unknown."""
        return self.usage.total.cost if self.usage.model_usage_summaries else 0.0

    def to_dict(self, folder: Path | None = None) -> dict[str, Any]:
        """The fields of a line. `folder`: of its file; a log below it has a relative path."""
        return {
            "id": self.id,
            "answer": self.answer,
            "error": self.error,
            "cost": self.cost,
            "seconds": round(self.seconds, 3),
            "usage": self.usage.to_dict(),
            "log": _relative(self.log, folder),
            "task": self.digest,
        }

    @classmethod
    def from_dict(cls, line: Mapping[str, Any], folder: Path | None = None) -> Self:
        """The result that `to_dict` wrote into a file of this folder.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is none.
        """
        if not isinstance(line["id"], str):
            raise TypeError("an id is a text")
        usage = UsageSummary.from_dict(line["usage"])
        log = line["log"] if line["log"] is None or folder is None else str(folder / line["log"])
        return cls(line["id"], line["answer"], line["error"], usage, float(line["seconds"]), log, line["task"])


def _relative(log: str | None, folder: Path | None) -> str | None:
    """A path as it is written into a file of a folder, so that the folder can be moved with its logs."""
    if log is None or folder is None:
        return log
    whole, folder = Path(log).absolute(), folder.absolute()
    return whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else str(whole)


def answered_in(path: Path) -> dict[str, str]:
    """The digests of the tasks that have an answer in a file of results, by id. The file may be in use.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        lines = [json.loads(raw) for raw in path.read_bytes().splitlines(keepends=True) if raw.endswith(b"\n")]
        return {line["id"]: line["task"] for line in lines if line["error"] is None}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read as results of a batch: {error}. Name another file.") from None


def failed(task: str, digest: str, error: BaseException, log: str | None, seconds: float) -> TaskResult:
    """The result of a task that failed."""
    counted = getattr(error, "run_usage", None) or UsageSummary()
    words = str(error) if isinstance(error, RLMError) else repr(error)
    return TaskResult(task, None, f"{type(error).__name__}: {words}", counted, seconds, log, digest)


class ResultFile:
    """A file of results, to which one process appends.

    Each line is written at once and whole, so that a process that is killed loses no result. A line that was cut, by a
    full disk or a power failure, is removed when the file is opened again.

    Args:
        path: of the file. It and its folder are made when needed.

    Attributes:
        answers: the results with an answer that the file held when it was opened, by id. Of those that are added, only
            the places are kept.
        spent: what the tasks had cost when the file was opened, failed ones too, by id.

    Raises:
        ConfigError: it cannot be written, is in use by another process, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, TaskResult] = {}
        self.spent: dict[str, UsageSummary] = {}
        self._places: dict[str, tuple[int, int]] = {}  # where the latest line of each task begins and ends
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab+", buffering=0)
        except OSError as error:
            raise ConfigError(f"The results cannot be written to {path}: {error}.") from None
        try:
            _lock(self._file.fileno(), path)
            self._load()
        except BaseException:
            self._file.close()
            raise

    def add(self, result: TaskResult) -> None:
        """Write a result.

        Raises:
            RecordingError: the disk is full.
        """
        line = json.dumps(result.to_dict(self.path.parent), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:]) or 0
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise RecordingError(
                f"The result of {result.id!r} could not be written to {self.path}: {error}. Make room, and run the "
                "same again: it asks only what has no answer there."
            ) from error
        self._places[result.id] = (end, end + len(line))

    def close(self, order: Iterable[str] = ()) -> None:
        """Write each result once, in this order, and close the file. A failure here loses nothing."""
        try:
            ids = {**dict.fromkeys(order), **dict.fromkeys(self._places)}
            self._rewrite([self._places[name] for name in ids if name in self._places])
        except OSError:  # a full disk: the lines stay as they are
            self._part.unlink(missing_ok=True)
        finally:
            self._file.close()

    def _rewrite(self, places: list[tuple[int, int]]) -> None:
        ends = [0, *(end for _, end in places)]
        if [begin for begin, _ in places] == ends[:-1] and ends[-1] == self._file.seek(0, os.SEEK_END):
            return  # it is so already
        with self._part.open("wb") as part:
            for begin, end in places:
                self._file.seek(begin)
                part.write(self._file.read(end - begin))
        shutil.copymode(self.path, self._part)
        self._part.replace(self.path.resolve())

    @property
    def _part(self) -> Path:
        path = self.path.resolve()  # of a link, the file
        return path.with_name(path.name + ".part")

    def _load(self) -> None:
        whole = 0
        for result, length in self._lines():
            self._places[result.id] = (whole, whole + length)
            self.spent[result.id] = result.usage
            self.answers.pop(result.id, None)
            if result.error is None:
                self.answers[result.id] = result
            whole += length
        self._file.truncate(whole)
        if whole and os.pread(self._file.fileno(), 1, whole - 1) != b"\n":  # an editor has removed it
            self._file.write(b"\n")
            self._places[result.id] = (whole - length, whole + 1)

    def _lines(self) -> Iterator[tuple[TaskResult, int]]:
        """The results in the file, with the lengths of their lines. A last line that was cut is left out.

        Raises:
            ConfigError: a line is no result.
        """
        with self.path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if not raw.endswith(b"\n") and (number > 1 or raw.startswith(_BEGINNING)) and not _is_json(raw):
                    return
                try:
                    yield TaskResult.from_dict(json.loads(raw), self.path.parent), len(raw)
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    raise ConfigError(
                        f"{self.path}:{number} is not a result of a batch: name another file for the results, or "
                        "remove that line."
                    ) from None


def _is_json(raw: bytes) -> bool:
    """Whether a line is whole. One of ours that was cut is not."""
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True


def _lock(fd: int, path: Path) -> None:
    """Take the file for this process. The system gives it free when the process ends.

    Raises:
        ConfigError: another process has it, or has just put another file in its place.
    """
    try:
        import fcntl
    except ImportError:  # pragma: no cover (Windows)
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        is_ours = False
    if not is_ours:
        raise ConfigError(f"{path} is in use by another batch: wait for it, or name another file.")


def write_parquet(results: Path, to: Path) -> None:
    """Write the results of a batch as a Parquet file, a row for each task. `usage` is JSON.

    Raises:
        ConfigError: pyarrow is not installed, or the file cannot be written.
    """
    check_extra("A Parquet file", "pyarrow", "files")
    from pyarrow import Table, parquet, schema

    with results.open("rb") as lines:
        rows = [{**_encodable(line), "usage": json.dumps(line["usage"])} for line in map(json.loads, lines)]
    numbers = ("cost", "seconds")
    names = ("id", "answer", "error", "cost", "seconds", "usage", "log", "task")
    types = schema({name: "float64" if name in numbers else "string" for name in names})
    try:
        parquet.write_table(Table.from_pylist(rows, types), to)
    except OSError as error:
        raise ConfigError(f"{to} cannot be written: {error}. The results are in {results}.") from None


def _encodable(line: dict[str, Any]) -> dict[str, Any]:
    """The fields with lone surrogates escaped: Parquet holds UTF-8."""
    return {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in line.items()
    }
