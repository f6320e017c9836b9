"""Read a log back: the run as far as it got.

The log of a killed process ends anywhere, also in the middle of a line. Everything before that is read.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from rlm_kernel.errors import RecordingError
from rlm_kernel.installation import update_command
from rlm_kernel.trajectory.events import Event
from rlm_kernel.trajectory.log import archive, clipping, jsonl, prompt_store, signature
from rlm_kernel.trajectory.log.file_names import RECORD, TURNS, by_beginning, file_beside, record_beside, stem_of
from rlm_kernel.trajectory.log.notebook_metadata import restore_metadata
from rlm_kernel.trajectory.states import state_without_end
from rlm_kernel.trajectory.tree import Trajectory
from rlm_kernel.untrusted import json_text

ContextEncoding = Literal["text", "json", "pickle"]


@dataclass(frozen=True, slots=True)
class StoredContext:
    """Where the input of a run is stored.

    Attributes:
        sha256: of its bytes, in hex.
        encoding: ``text``: UTF-8 with surrogates passed; ``json``; ``pickle``: for values that these would change. The
            host never unpickles a file, only a kernel does.
        size: bytes.
        file: its path relative to the log's folder, or None when it is embedded.
        value: the embedded input.
        redacted: whether it was not stored because it holds a secret.
        left_out: whether it was not stored because of the quota for the files of the run.
    """

    sha256: str
    encoding: ContextEncoding
    size: int
    file: str | None = None
    value: Any = None
    redacted: bool = False
    left_out: bool = False


_KNOWN = "Give a log (.jsonl) that RLMLogger or `rlm run` wrote; those of other tools cannot be read."
_MAX_FIRST = 1 << 22
_MAX_NOTEBOOK = 1 << 30
_MAX_LINE = 1 << 28

_STORED = tuple(field.name for field in dataclasses.fields(StoredContext))


@dataclass(frozen=True, slots=True)
class Recording:
    """A log that was read.

    Attributes:
        path: of the record.
        metadata: its first line: the documented fields, and the configuration of the `RLM`.
        context: the input, or None if the run was killed before it was stored.
        trajectory: the run.
        flaw: why the signature is not the user's, as text; None: it is.
        clipped_at: the first cell that is not completely in the log, because the log reached `max_log_bytes`; or None.
    """

    path: Path
    metadata: dict[str, Any]
    context: StoredContext | None
    trajectory: Trajectory
    flaw: str | None = None
    clipped_at: int | None = None

    @property
    def stem(self) -> str:
        """The name of the run: that of the log and of the notebook, without the suffix."""
        return stem_of(self.path)


def read_log(path: str | Path) -> Recording:
    """Read a log, or the log of a notebook.

    Raises:
        RecordingError: there is no such file, or it is not a log of ours.
    """
    log = log_of(Path(path))
    metadata: dict[str, Any] = {}
    context: StoredContext | None = None
    trajectory, known, clipped_at = Trajectory(), dict[str, str | None](), None
    check = signature.Check()
    for number, line in _lines(log, check):
        if (kind := line.get("type")) not in jsonl.TYPES:
            raise RecordingError(f"{log}: line {number} is not one of ours: its type is {kind!r}. {_KNOWN}")
        try:
            if kind == "context":
                fields = {key: line[key] for key in _STORED if key in line}
                context = jsonl.reader_of(StoredContext).validate_python(fields)
                continue
            if not metadata and _is_of_turns(line):
                raise RecordingError(_of_turns(log))
            if kind == "metadata" and not metadata:
                metadata = _check_first_line(log, line)
            _restore_prompts(line, log.parent, known)
            trajectory.add(jsonl.event_of(line))
            if line.get(clipping.MARK) and clipped_at is None:
                clipped_at = _running_cell(trajectory, line)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise RecordingError(f"{log}: line {number} is not one of ours: {_wrong(error)}. {_KNOWN}") from error
    if not metadata:
        raise RecordingError(f"{log} holds no run: it has no line of the type 'metadata'. {_KNOWN}")
    if trajectory.is_over or state_without_end(log.stat().st_mtime) == "lost":
        trajectory.lose()
    return Recording(log, metadata, context, trajectory, check.flaw, clipped_at)


def events_of_log(log: Path) -> list[Event]:
    """The events of a log that `read_log` can read, in their order."""
    known: dict[str, str | None] = {}
    found = []
    for _, line in _lines(log, signature.Check()):
        if line.get("type") != "context":
            _restore_prompts(line, log.parent, known)
            found.append(jsonl.event_of(line))
    return found


def _restore_prompts(line: dict[str, Any], folder: Path, known: dict[str, str | None]) -> None:
    """Read the large prompts of a call, or of one in a child's run, from their files."""
    while line.get("type") == "child" and isinstance(line.get("line"), dict):
        line = line["line"]
    if line.get("type") == "subcall":
        prompt_store.restore(line, folder, known)


def _running_cell(run: Trajectory, line: dict[str, Any]) -> int:
    """The cell that was running when a line was written, or the next one."""
    latest = run.cells[-1] if run.cells else None
    if latest is None or (latest.result is not None and line.get("cell") != latest.number):
        return 1 if latest is None else latest.number + 1
    return latest.number


def _wrong(error: Exception) -> str:
    """The problem of a line in a few words."""
    from pydantic import ValidationError

    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def _is_of_turns(first: Mapping[str, Any]) -> bool:
    """Whether it is the first line of a log without events. A logger that was used before writes no metadata."""
    return "code_blocks" in first or (first["type"] == "metadata" and not {"log_schema", "model"} & first.keys())


def _of_turns(log: Path) -> str:
    """What is wrong with a log that has no record."""
    return (
        f"{log} holds only the turns of a run, as the reference's RLMLogger writes them: `rlm view` opens it. Other "
        f"commands need the record, and there is no record {file_beside(log, RECORD).name} beside it: put it back, if "
        "rlm-kernel wrote the log."
    )


def _check_first_line(log: Path, line: dict[str, Any]) -> dict[str, Any]:
    """The first line, after a check of the fields that no event reads.

    Raises:
        KeyError, TypeError, ValueError: a field is wrong.
        RecordingError: a later version wrote it.
    """
    schema = line.get("log_schema", jsonl.SCHEMA)
    if not isinstance(schema, int):
        raise TypeError("log_schema is not a number")
    if schema > jsonl.SCHEMA:
        raise RecordingError(
            f"{log} has the schema {schema}, and this version of rlm-kernel reads up to {jsonl.SCHEMA}. Update it: "
            f"{update_command()}"
        )
    datetime.fromisoformat(line.get("timestamp") or "1970-01-01")
    for name in ("forked_from", "configuration", "environment_kwargs"):
        if not isinstance(line.get(name), dict | None):
            raise TypeError(f"{name} is not an object")
    jsonl.check_tools((line.get("configuration") or {}).get("custom_sub_tools") or ())
    return line


def earlier_recordings(recording: Recording) -> tuple[Recording, ...]:
    """The earlier runs in the same persistent kernel, in order.

    Raises:
        RecordingError: the log of one of them is missing or was altered.
    """
    known, served = [recording], []
    while (name := known[-1].metadata.get("continues")) is not None:
        plain = Path(str(name)).name == name
        log = log_of(recording.path.with_name(f"{name}{TURNS}")) if plain else recording.path
        if log in (one.path for one in known):
            raise RecordingError(f"{known[-1].path} continues {name!r}, which cannot be: it was altered.")
        if not log.stat().st_size:  # it was cancelled before it began
            _check_begins(known, log)
            break
        earlier = read_log(log)
        known.append(earlier)
        if earlier.trajectory.kernel_seconds is not None:  # else it never came to be served
            served.append(earlier)
    return tuple(reversed(served))


def _check_begins(known: Sequence[Recording], empty: Path) -> None:
    """Check that these are the first runs in their kernel, whose cells are counted through all runs.

    Raises:
        RecordingError: there were earlier ones, and the empty log does not name them.
    """
    first = min((cell.number for one in known for cell in one.trajectory.cells), default=1)
    if first > 1:
        raise RecordingError(
            f"{empty} is empty, so the earlier runs in the kernel of {known[0].stem} are not known: start a new run."
        )


def log_of(path: Path) -> Path:
    """The record that is meant by its own path, or by that of the turns or the notebook of the run.

    Raises:
        RecordingError: there is no such log.
    """
    is_of_children = bool(path.name) and record_beside(path).is_file()  # the folder of a run's children has its name
    if path.is_dir() and not is_of_children:
        raise RecordingError(f"{str(path)!r} is a folder: name one of its logs (.jsonl). {_latest_of(path)}")
    if path.suffix == ".zip":
        return _unpacked(path)
    if path.suffix not in ("", ".jsonl", ".ipynb"):
        raise RecordingError(f"{str(path)!r} is not a log of a run: give the .jsonl, or its notebook (.ipynb).")
    # Of a link to a log, the record is beside the target. A record that is a link itself was not named by the user.
    log = record_beside(path.resolve() if path.suffix == TURNS and path.is_symlink() else path)
    if path.suffix == ".ipynb" and not log.is_file():
        log = record_beside(_named_in(path))
    if not log.is_file():
        raise RecordingError(f"There is no log {str(log)!r}: give the .jsonl of a run, or the notebook in its folder.")
    return log


def _unpacked(path: Path) -> Path:
    """The log in a ZIP archive."""
    try:
        return archive.unpack(json_text.read_file(path, archive.MAX_BYTES))
    except FileNotFoundError:
        raise RecordingError(f"There is no file {str(path)!r}.") from None
    except (OSError, ValueError, RecordingError) as error:
        raise RecordingError(f"{path} is not the archive of a run: {error}") from error


def check_is_log(log: Path) -> None:
    """Check that a file begins like a log of ours or of the reference's format. It may be empty.

    Raises:
        RecordingError: it does not.
    """
    with log.open("rb") as file:
        line = file.readline(_MAX_FIRST)
    try:
        known = not line.endswith(b"\n") or json.loads(line).get("type") in ("metadata", "iteration")
    except (ValueError, AttributeError, RecursionError):
        known = False
    if not known:
        raise RecordingError(f"{log} is not the log of a run: its first line is not one of ours. {_KNOWN}")


def _latest_of(folder: Path) -> str:
    logs = sorted(folder.glob("*.jsonl"), key=by_beginning)
    return f"The latest is {logs[-1]}." if logs else "The folder holds no log."


def _named_in(notebook: Path) -> Path:
    """The log that a notebook holds, or that its metadata name; a copy of it may have another folder or name."""
    try:
        content = json_text.load(notebook, max_bytes=_MAX_NOTEBOOK)
        if (held := archive.held_in(content)) is not None:
            return archive.unpack(held)
        restore_metadata(content)
        about = content["metadata"]["rlm"]
        folder, name = str(about.get("rlm_dir", ".")), str(about["log"])
    except FileNotFoundError:
        raise RecordingError(f"There is no file {str(notebook)!r}.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordingError(f"{notebook} is not a notebook of a run: {error!r}") from error
    # That of a child is in a folder beside the log.
    nearby = (record_beside(place / name) for place in (notebook.parent, notebook.absolute().parent.parent))
    return next(filter(Path.is_file, nearby), Path(folder) / name)


def _lines(log: Path, check: signature.Check) -> Iterator[tuple[int, dict[str, Any]]]:
    with log.open("rb") as file:
        for number, raw in enumerate(iter(lambda: file.readline(_MAX_LINE + 1), b""), 1):
            if len(raw) > _MAX_LINE:
                raise RecordingError(f"{log}: line {number} has more than {_MAX_LINE:,} bytes. {_KNOWN}")
            try:
                line = json.loads(raw)
            except (ValueError, RecursionError) as error:
                if raw.endswith(b"\n"):
                    raise RecordingError(f"{log}: line {number} is not JSON: {error}") from error
                return  # the process was killed while it wrote this line
            if not isinstance(line, dict):
                raise RecordingError(f"{log}: line {number} is not a JSON object.")
            check.take(number, raw)
            yield number, line
