"""Where the viewer reads a log from: a file that may still grow, or the result of a completion."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_kernel.errors import ConfigError
from rlm_kernel.trajectory.log.file_names import record_beside
from rlm_kernel.trajectory.log.jsonl import line_of, text_of
from rlm_kernel.trajectory.log.reader import log_of
from rlm_kernel.trajectory.states import state_without_end
from rlm_kernel.trajectory.tree import Trajectory, events_of
from rlm_kernel.types import RLMChatCompletion, held_fields

_STEP = re.compile(r"child=(?P<child>\d{1,9}\.\d{1,9})")


@dataclass(frozen=True)
class LogOnDisk:
    """A log in a file, which may grow. Every attribute but the name may raise `OSError`."""

    path: Path
    grows: bool = True

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.path.name

    @property
    def fresh(self) -> bool:
        """Whether a log without an end belongs to a run in progress."""
        return state_without_end(self.path.stat().st_mtime) == "running"

    @property
    def size(self) -> int:
        """The current size in bytes."""
        return self.path.stat().st_size

    def read(self, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from an offset; empty at the end."""
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(limit)


@dataclass(frozen=True)
class LogInMemory:
    """The trajectory of a result as the lines of a log. It has the attributes of `LogOnDisk`."""

    name: str
    content: bytes
    grows: bool = False
    fresh: bool = False

    @property
    def size(self) -> int:
        """The size in bytes."""
        return len(self.content)

    def read(self, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from an offset; empty at the end."""
        return self.content[offset : offset + limit]


def split_place(given: str) -> tuple[str, tuple[str, ...]]:
    """A path, and the children that are named after it, as in the address of the viewer: `LOG?child=3.1&child=2.1`.

    Each child is the number of a cell and that of a prompt of it, from 1. A file whose name ends like that is a path.

    Raises:
        ConfigError: what follows the path names no child.
    """
    path, sign, query = given.rpartition("?")
    if not sign or Path(given).exists():
        return given, ()
    steps = [_STEP.fullmatch(part) for part in query.split("&")]
    if not all(steps):
        raise ConfigError(f"{given!r}: a child is named by its cell and prompt, as in LOG?child=3.1.")
    return path, tuple(step["child"] for step in steps if step)


def log_source(run: RLMChatCompletion | str | os.PathLike[str]) -> LogOnDisk | LogInMemory:
    """The log for the argument of `view`.

    Raises:
        ConfigError: it is neither a result with a trajectory nor a path.
        RecordingError: there is no log at the path.
    """
    if isinstance(run, RLMChatCompletion):
        log = getattr(run, "trajectory", None) or getattr(held_fields(run)["metadata"], "log", None)
        if log is not None and record_beside(Path(log)).is_file():
            return LogOnDisk(record_beside(Path(log)))
        return LogInMemory("result", b"".join(_lines(run)))
    if isinstance(run, str | os.PathLike):
        return LogOnDisk(log_of(Path(run)))
    raise ConfigError(f"view() takes the result of a completion or the path of a log, not {type(run).__name__}.")


def _lines(result: RLMChatCompletion) -> Iterator[bytes]:
    if result.metadata is None:
        raise ConfigError(
            "The result has no trajectory to view: give the RLM a logger, RLM(..., logger=RLMLogger()), "
            "with `from rlm.logger import RLMLogger`."
        )
    kept = json.loads(json.dumps(result.metadata, default=str))
    recorded = [line_of(event) for event in events_of(getattr(result.metadata, "run", None) or Trajectory())]
    if not recorded:  # of a trajectory that was kept as plain data
        recorded = [{"type": "metadata"}, *({"type": "iteration", **one} for one in kept["iterations"])]
    for line in recorded:
        if line is not None and line["type"] not in ("finished", "failed"):
            yield _line({**line, **(kept["run_metadata"] if line["type"] == "metadata" else {})})
    yield _line(_outcome(result))


def _outcome(result: RLMChatCompletion) -> dict[str, Any]:
    """The last line of the log. Only a result of `%%rlm` may hold an error."""
    error = getattr(result, "error", None)
    if error is not None:
        failure = {"error_type": type(error).__name__, "error": str(error), "partial_answer": result.response or None}
        spent = {"usage_summary": result.usage_summary.to_dict()}
        return {"type": "failed", "time": result.execution_time, **failure, **spent}
    done = result.to_dict()
    known = {name: done[name] for name in ("response", "usage_summary", "execution_time")}
    return {"type": "finished", "time": result.execution_time, **known}


def _line(fields: dict[str, Any]) -> bytes:
    return text_of(fields).encode("ascii") + b"\n"
