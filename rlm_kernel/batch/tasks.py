"""The tasks of a batch, from a list or a file.

A file is read twice: once to check each line and to count them, before a model is asked anything; then line by line as
tasks are started. So a batch of any length takes the memory of the tasks in progress.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from rlm_kernel import inputs
from rlm_kernel.errors import ConfigError, check_extra
from rlm_kernel.types import Prompt

FIELDS = ("id", "question", "context", "path")
_MAX_ID = 500
_DIGEST = 16
_MAX_REPORTED = 20
"""Wrong tasks that one message names."""
_EXTRA = "files"


@dataclass(frozen=True, slots=True)
class Task:
    """One question of a batch.

    Attributes:
        id: names it in the results; unique in the batch.
        question: the `root_prompt`; None: the context contains it.
        context: the input.
        path: the file or folder of the input, read when the task starts; instead of `context`.
    """

    id: str
    question: str | None = None
    context: Prompt | None = field(default=None, repr=False)
    path: Path | None = None

    @property
    def digest(self) -> str:
        """Changes with the question and the input. Of a path, its last name and the times of the last changes count."""
        source: Any = self.context if self.path is None else [self.path.name, _changes(self.path)]
        text = json.dumps([self.question, source], sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]

    def load(self) -> tuple[Prompt, str | None]:
        """The input and the question of a completion.

        Raises:
            ConfigError: the file cannot be read.
        """
        if self.path is not None:
            return inputs.read(str(self.path), "path"), self.question
        if self.context is None:
            return self.question or "", None
        return self.context, self.question


@dataclass(frozen=True, slots=True)
class Tasks:
    """The tasks of a batch, checked.

    Attributes:
        ids: of all tasks, in order.
        read: gives the tasks again, in the same order.
        folder: whose files are the inputs; None: they come from elsewhere.
        left_out: ids of the tasks that a sample leaves out.
    """

    ids: tuple[str, ...]
    read: Callable[[], Iterable[Task]] = field(repr=False)
    folder: Path | None = None
    left_out: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.read())

    def sample(self, count: int, seed: int = 0) -> Tasks:
        """Some of the tasks, chosen at random, in the same order.

        Raises:
            ConfigError: `count` is no whole number from 1.
        """
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ConfigError(f"sample={count!r} must be a whole number from 1.")
        chosen = set(random.Random(seed).sample(range(len(self)), min(count, len(self))))  # noqa: S311 (no secret)
        ids = tuple(name for number, name in enumerate(self.ids) if number in chosen)
        left_out = frozenset(self.ids).difference(ids)
        read = lambda: (task for number, task in enumerate(self) if number in chosen)  # noqa: E731 (ids change, too)
        return replace(self, ids=ids, read=read, left_out=left_out)

    def without(self, answered: Mapping[str, str]) -> Tasks:
        """The tasks that have no answer. `answered`: the digests of those that have one, by id."""
        left = [task.id for task in self if answered.get(task.id) != task.digest]
        chosen = frozenset(left)
        return replace(self, ids=tuple(left), read=lambda: (task for task in self if task.id in chosen))

    def check_outside(self, written: Path) -> None:
        """Check that what the batch writes does not become an input of its next call.

        Raises:
            ConfigError: it is in the folder of the inputs.
        """
        if self.folder is not None and written.resolve().is_relative_to(self.folder.resolve()):
            raise ConfigError(f"{written} is in {self.folder}, whose files are the inputs: name a place outside.")


def tasks_of(
    source: Iterable[Any] | str | PurePath, question: str | None = None, context: Prompt | None = None
) -> Tasks:
    """The tasks in a list, a file or a folder.

    Args:
        source: tasks, mappings with the fields of `Task`, or inputs; a path of a `.jsonl`, `.csv`, `.tsv` or `.parquet`
            file with these fields; or a folder, each file of which is an input.
        question: of all tasks that have none of their own.
        context: the input of all tasks that have none. Then an input in the list is a question.

    Raises:
        ConfigError: nothing can be read, tasks are wrong, or two have the same id. The message has a line for each
            wrong one, which says where it is.
    """
    if isinstance(source, Tasks):
        return source
    fill = partial(_fill, question=question, context=context)
    if isinstance(source, Mapping):
        raise ConfigError("The tasks are a dict: give a list, [{…}] for one task.")
    if isinstance(source, str | PurePath):
        path = Path(source)
        rows = rows_of_file(path, FIELDS)
        tasks = checked(
            lambda: ((f"{path}:{number}", partial(fill, row, f"{path}:{number}")) for number, row in rows())
        )
        return replace(tasks, folder=path if path.is_dir() else None)
    kept = list(source)
    return checked(lambda: ((f"task {n}", partial(fill, row, f"task {n}", n)) for n, row in enumerate(kept, 1)))


def checked(read: Callable[[], Iterable[tuple[str, Callable[[], Task]]]]) -> Tasks:
    """The tasks of these places, each of which is read and checked once before it is used.

    Raises:
        ConfigError: as `tasks_of`.
    """
    seen: dict[str, str] = {}
    wrong: list[str] = []
    for where, task_of in read():
        try:
            task = task_of()
            _check(task, where, seen)
        except ConfigError as error:
            wrong.append(str(error))
    if wrong:
        raise ConfigError(_report(wrong))
    if not seen:
        raise ConfigError("There are no tasks: the list or file is empty.")
    return Tasks(tuple(seen), lambda: (task_of() for _, task_of in read()))


def _report(wrong: list[str]) -> str:
    """One message about wrong tasks, the first of them a line each."""
    if len(wrong) == 1:
        return wrong[0]
    more = [f"and {len(wrong) - _MAX_REPORTED:,} more"] if len(wrong) > _MAX_REPORTED else []
    return "\n".join([f"{len(wrong):,} tasks are wrong, and none was asked:", *wrong[:_MAX_REPORTED], *more])


def _check(task: Task, where: str, seen: dict[str, str]) -> None:
    """Note a task among those that were seen.

    Raises:
        ConfigError: its id is wrong or not its own, or its path does not exist.
    """
    if not (isinstance(task.id, str) and 0 < len(task.id) <= _MAX_ID and task.id.isprintable()):
        raise ConfigError(f"{where}: the id {repr(task.id)[:50]} must be text of 1 to {_MAX_ID} printable characters.")
    if (first := seen.setdefault(task.id, where)) != where:
        raise ConfigError(f"{where} has the id {task.id!r} of {first}: give each task its own.")
    if task.path is not None and not os.path.lexists(task.path):
        raise ConfigError(f"{where}: the path {str(task.path)!r} does not exist: name a file or folder.")


def _changes(path: Path) -> list[int]:
    """When the files of a path were changed, in nanoseconds, in the order of their names."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file.stat().st_mtime_ns for file in files if file.is_file()]


def _fill(row: Any, where: str, number: int | None = None, *, question: str | None, context: Prompt | None) -> Task:
    """A task from one row.

    Raises:
        ConfigError: it is wrong.
    """
    if isinstance(row, ConfigError):
        raise row
    task = row if isinstance(row, Task) else _task(row, where, number, shared=context is not None)
    if task.question is None and question is not None:
        task = replace(task, question=question)
    if task.context is None and task.path is None and context is not None:
        task = replace(task, context=context)
    if task.question is None and task.context is None and task.path is None:
        raise ConfigError(f"{where} has no question, context or path: give one.")
    return task


def _task(row: Any, where: str, number: int | None, *, shared: bool) -> Task:
    default_id = where.rpartition(":")[2] if number is None else str(number)
    if isinstance(row, Path):
        return Task(default_id if number is None else str(row), path=row)
    if isinstance(row, Mapping) and row and row.keys() <= set(FIELDS):
        return _from_fields(row, where, default_id)
    if not isinstance(row, str | dict | list):
        raise ConfigError(
            f"{where} is a {type(row).__name__}: give text, a dict with {', '.join(FIELDS)}, a Path or a Task."
        )
    return Task(default_id, question=row) if shared and isinstance(row, str) else Task(default_id, context=row)


def _from_fields(row: Mapping[str, Any], where: str, default_id: str) -> Task:
    given = {name: value for name, value in row.items() if value is not None and value != ""}
    name, question, context, path = (given.get(field_) for field_ in FIELDS)
    name = id_of(name, default_id)
    if question is not None and not isinstance(question, str):
        raise ConfigError(f"{where}: question is a {type(question).__name__}: make it text.")
    if context is not None and path is not None:
        raise ConfigError(f"{where} has a context and a path: give one.")
    if context is not None and not isinstance(context, str | dict | list):
        raise ConfigError(f"{where}: context is a {type(context).__name__}: make it text, a dict or a list.")
    if path is not None and not isinstance(path, str | PurePath):
        raise ConfigError(f"{where}: path is a {type(path).__name__}: make it text.")
    return Task(name, question, context, None if path is None else Path(path))


def id_of(name: Any, default: str) -> str:
    """The id of a row; an empty one is that of its place."""
    return default if name is None or name == "" else str(name)


def rows_of_file(path: Path, fields: Sequence[str] | None = None) -> Callable[[], Iterator[tuple[Any, Any]]]:
    """What gives the rows of a file or folder, each with the name of its place. A row that is wrong is a `ConfigError`.

    Args:
        path: of the file.
        fields: which of its columns are read; None: all.

    Raises:
        ConfigError: its kind is not known.
    """
    if path.is_dir():
        return lambda: (
            (file.relative_to(path), {"id": str(file.relative_to(path)), "path": file}) for file in _files(path)
        )
    readers = {".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _table, ".tsv": _table, ".parquet": _parquet}
    if not path.exists():
        raise ConfigError(f"{path} does not exist: name a file with tasks, or a folder.")
    if (reader := readers.get(path.suffix.lower())) is None:
        raise ConfigError(f"{path} is no list of tasks: give a folder or a file that ends in {', '.join(readers)}.")
    return lambda: _relative(_read(reader, path, fields), path.parent)


_Reader = Callable[[Path, Sequence[str] | None], Iterator[tuple[int, Any]]]


def _read(reader: _Reader, path: Path, fields: Sequence[str] | None) -> Iterator[tuple[int, Any]]:
    """The rows of a file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        yield from reader(path, fields)
    except ConfigError:
        raise
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} cannot be read: {error}. Save it as UTF-8.") from None
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as {path.suffix[1:].upper()}: {error}.") from None


def _relative(rows: Iterator[tuple[int, Any]], folder: Path) -> Iterator[tuple[int, Any]]:
    """The rows; a relative `path` in them is relative to the folder of their file."""
    for number, row in rows:
        path = row.get("path") if isinstance(row, dict) else None
        yield number, {**row, "path": folder / path} if isinstance(path, str) and path else row


def _files(folder: Path) -> Iterator[Path]:
    visible = (
        file for file in sorted(folder.rglob("*")) if not any(p.startswith(".") for p in file.relative_to(folder).parts)
    )
    return (file for file in visible if file.is_file())


def _json_lines(path: Path, fields: Sequence[str] | None) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, ConfigError(f"{path}:{number} is not JSON: {error}: write one object a line.")
                continue
            if isinstance(row, dict) and fields is not None:
                found = {name: row[name] for name in fields if name in row}
                nothing = ConfigError(f"{path}:{number} has none of the fields {', '.join(fields)}: name them so.")
                row = _misspelt(f"{path}:{number}", row, fields) or found or nothing
            yield number, row


def _table(path: Path, fields: Sequence[str] | None) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        columns = _columns(path, fields, rows.fieldnames or ())
        for row in rows:
            found = {name: row[name] for name in columns if row.get(name)}
            yield rows.line_num, found or _empty(path, rows.line_num)


def _parquet(path: Path, fields: Sequence[str] | None) -> Iterator[tuple[int, Any]]:
    check_extra("A Parquet file", "pyarrow", _EXTRA)
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    number = 0
    for batch in file.iter_batches(columns=_columns(path, fields, file.schema_arrow.names)):
        for row in batch.to_pylist():
            number += 1
            yield number, row if any(value not in (None, "") for value in row.values()) else _empty(path, number)


def _empty(path: Path, number: int) -> ConfigError:
    return ConfigError(f"{path}:{number} is an empty row: fill or remove it.")


def _columns(path: Path, fields: Sequence[str] | None, names: Sequence[str]) -> list[str]:
    """Which columns of a file are read.

    Raises:
        ConfigError: it has none of the fields.
    """
    columns = [name for name in names if fields is None or name in fields]
    if error := _misspelt(str(path), names, fields or ()):
        raise error
    if not columns:
        raise ConfigError(f"{path} has none of the columns {', '.join(fields or ())}: name them so.")
    return columns


def _misspelt(where: str, names: Iterable[str], fields: Sequence[str]) -> ConfigError | None:
    """The error of a field such as `Question`, which would be ignored; None: there is none."""
    known = set(names)
    for name in known.difference(fields):
        meant = name.strip().lower().removesuffix("s")
        if meant in fields and meant not in known:
            return ConfigError(f"{where} has {name!r}; did you mean {meant!r}?")
    return None
