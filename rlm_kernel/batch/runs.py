"""One task of a batch in this process: its run, its log, and what an earlier call left of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import sys
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rlm_kernel._async import run_in_thread
from rlm_kernel.batch.results import TaskResult, failed
from rlm_kernel.batch.tasks import Task
from rlm_kernel.engine.recorded import RecordedRun, merged, recorded_run_of
from rlm_kernel.engine.shared_limits import Admission
from rlm_kernel.errors import BudgetExceededError, LimitError, LMError, RecordingError, TokenLimitExceededError
from rlm_kernel.trajectory.log.file_names import RECORD
from rlm_kernel.trajectory.log.logger import RLMLogger
from rlm_kernel.trajectory.log.reader import Recording, read_log
from rlm_kernel.types import Prompt, RLMChatCompletion

_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_SLUG = 40
_DIGEST = 16
_HOPELESS = frozenset({401, 403, 404})
"""Statuses that the next task would get, too: the key or the name of the model is wrong."""

_LIMITS_OF_BATCHES = {BudgetExceededError: "max_budget", TokenLimitExceededError: "max_tokens"}
"""The limits that a batch may have, too, by their errors."""


Started = Awaitable[RLMChatCompletion]
Start = Callable[[Admission, Prompt, str | None, RLMLogger | None, RecordedRun | None], Started]
"""Starts a completion, with the limits that it shares, its input and question, its logger, and its earlier record."""


class Runs(Protocol):
    """Runs the tasks of a batch."""

    @property
    def stopped_by(self) -> BaseException | None:
        """The error after which no further task is worth a try, or None."""
        ...

    def __call__(self, task: Task, limits: Admission) -> Awaitable[TaskResult]:
        """Run a task within these limits. It does not raise: a failure is a result."""
        ...


@dataclass(slots=True)
class LocalRuns:
    """Runs tasks in this process.

    Attributes:
        start: starts a completion.
        configuration: the arguments of the `RLM` as its logs hold them. A log of other ones is not resumed.
        log_dir: the folder of the logs; None: no logs.
        batch: whose logs they are, see `batch_name`.
        logger: makes the logger of a run, from that folder and the beginning of its name.
        listing: the sorted names in that folder when the batch began; None: the folder is read for each task.
        stopped_by: the error after which no further task is worth a try, or None.
    """

    start: Start
    configuration: Mapping[str, Any]
    log_dir: Path | None = None
    batch: str = ""
    logger: Callable[[Path, str], RLMLogger] = RLMLogger
    listing: Sequence[str] | None = None
    stopped_by: BaseException | None = field(default=None, init=False)

    async def __call__(self, task: Task, limits: Admission, digest: str = "") -> TaskResult:
        """Run a task. An unfinished run of it is resumed from its log: no recorded call is repeated.

        Args:
            task: the task.
            limits: of its batch.
            digest: of the task, if it is known.
        """
        started = time.monotonic()
        logger = None
        try:
            digest = digest or await run_in_thread(lambda: task.digest)
            prompt, question = await run_in_thread(task.load)
            logger, recorded = await run_in_thread(lambda: self._logger(task, digest))
            done = await self.start(limits, prompt, question, logger, recorded)
        except Exception as error:  # noqa: BLE001 (it is the result of the task)
            if ends_batch(error):
                self.stopped_by = self.stopped_by or error
            return failed(task.id, digest, error, _log_of(logger), time.monotonic() - started)
        seconds = time.monotonic() - started
        return TaskResult(
            task.id, done.response, None, done.usage_summary, seconds, _log_of(logger), digest, completion=done
        )

    def _logger(self, task: Task, digest: str) -> tuple[RLMLogger | None, RecordedRun | None]:
        if self.log_dir is None:
            return None, None
        name = log_name(self.batch, task, digest)
        known = [recorded_run_of(found.trajectory) for found in self.recordings(name)]
        return self.logger(self.log_dir, name), merged(known) if known else None

    def recordings(self, name: str) -> Iterator[Recording]:
        """The records of a task's earlier runs that can be resumed. `name`: how the names of its logs begin."""
        assert self.log_dir is not None, "there are logs"
        for log in self._logs(self.log_dir, f"{name}_"):
            with suppress(RecordingError):  # killed before its first line
                found = read_log(log)
                whole = found.flaw is None and found.clipped_at is None
                same = found.metadata.get("configuration") == self.configuration
                if whole and same and not self._was_own_limit(found.trajectory.failure):
                    yield found

    def _logs(self, log_dir: Path, prefix: str) -> Iterable[Path]:
        if self.listing is None:
            return log_dir.glob(f"{prefix}*{RECORD}")
        begin, end = (bisect_left(self.listing, text) for text in (prefix, prefix + chr(sys.maxunicode)))
        return (log_dir / name for name in self.listing[begin:end] if name.endswith(RECORD))

    def _was_own_limit(self, failure: BaseException | None) -> bool:
        """Whether a limit of the run itself has ended it, and not one of its batch. Resumed, it would end at once."""
        name = next((name for kind, name in _LIMITS_OF_BATCHES.items() if isinstance(failure, kind)), None)
        return isinstance(failure, LimitError) and (name is None or self.configuration.get(name) is not None)


def batch_name(out: str | os.PathLike[str] | None, log_dir: Path | None) -> str:
    """What the logs of a batch have in common with those of its next call: the way from their folder to the results.

    Without a file of results there is no next call, and the name is random.
    """
    return secrets.token_hex(_DIGEST) if out is None or log_dir is None else os.path.relpath(out, log_dir)


def log_name(batch: str, task: Task, digest: str) -> str:
    """How the names of the logs of a task begin. No other batch, task or question has the same."""
    whole = json.dumps([batch, task.id, digest])
    return f"{slug(task.id)}-{hashlib.sha256(whole.encode()).hexdigest()[:_DIGEST]}"


def slug(name: str) -> str:
    """The id of a task as the beginning of a file's name."""
    return _NO_NAME.sub("-", name)[:_SLUG].strip("-.") or "task"


def _log_of(logger: RLMLogger | None) -> str | None:
    return None if logger is None else logger.log_file_path


def ends_batch(error: Exception) -> bool:
    """Whether no further task is worth a try: the key is refused, or the model is unknown."""
    return isinstance(error, LMError) and error.status in _HOPELESS
