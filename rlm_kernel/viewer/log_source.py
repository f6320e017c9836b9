"""Where the viewer reads a log from: a file that may still grow, or the result of a completion."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rlm_kernel.errors import ConfigError
from rlm_kernel.trajectory.log.reader import log_of
from rlm_kernel.types import RLMChatCompletion

FRESH_SECONDS = 600.0
"""A log without an end that changed this recently belongs to a run in progress: a model may take minutes."""


class LogSource(Protocol):
    """Where the bytes of a log are.

    Attributes:
        name: shown to the user.
        grows: whether bytes may be added.
    """

    name: str
    grows: bool

    @property
    def fresh(self) -> bool:
        """Whether it changed recently."""
        ...

    @property
    def size(self) -> int:
        """The current size in bytes.

        Raises:
            OSError: it cannot be read.
        """
        ...

    def read(self, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from an offset; none at the end.

        Raises:
            OSError: it cannot be read.
        """
        ...


@dataclass(frozen=True)
class LogOnDisk:
    """A file that may grow."""

    path: Path
    grows: bool = True

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.path.name

    @property
    def fresh(self) -> bool:
        """Whether the file changed in the last ten minutes."""
        return time.time() - self.path.stat().st_mtime < FRESH_SECONDS

    @property
    def size(self) -> int:
        """See `LogSource.size`."""
        return self.path.stat().st_size

    def read(self, offset: int, limit: int) -> bytes:
        """See `LogSource.read`."""
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(limit)


@dataclass(frozen=True)
class LogInMemory:
    """The trajectory of a result, as lines."""

    name: str
    content: bytes
    grows: bool = False
    fresh: bool = False

    @property
    def size(self) -> int:
        """See `LogSource.size`."""
        return len(self.content)

    def read(self, offset: int, limit: int) -> bytes:
        """See `LogSource.read`."""
        return self.content[offset : offset + limit]


def log_source(run: RLMChatCompletion | str | os.PathLike[str]) -> LogOnDisk | LogInMemory:
    """The log for the argument of `view`.

    Raises:
        ConfigError: it is neither a result with a trajectory nor a path.
        RecordingError: there is no log at the path.
    """
    if isinstance(run, RLMChatCompletion):
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
    yield _line({"type": "metadata", **result.metadata["run_metadata"]})
    for iteration in result.metadata["iterations"]:
        yield _line({"type": "iteration", **iteration})
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
    return json.dumps(fields, default=str).encode("ascii") + b"\n"
