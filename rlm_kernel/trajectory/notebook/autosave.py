"""Save the notebook of a run during the run, so that the file is complete at every moment.

A thread collects the events and writes; the engine's loop only queues them. The file is replaced atomically, so a
process that is killed leaves the version before.
"""

from __future__ import annotations

import errno
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event
from rlm_kernel.trajectory.log.atomic_files import write_pieces
from rlm_kernel.trajectory.log.quota import Quota
from rlm_kernel.trajectory.log.redaction import Redactor
from rlm_kernel.trajectory.notebook.build import (
    RunIdentity,
    identity_of_log,
    load_nbformat,
    notebook_of,
    runs,
)
from rlm_kernel.trajectory.notebook.growing import GrowingNotebook
from rlm_kernel.trajectory.notebook.setup_cell import write_replay_code
from rlm_kernel.trajectory.tree import Trajectory

SECONDS = 1.0
"""Seconds between two writes during the run."""

FIRST_SECONDS = 1.0
"""Seconds before the first write, so that a short run is written once."""

SHARE = 50
"""A notebook that takes long to make is made less often: at most this part of the time goes into it."""

_UNREAD = (events.ModelText, events.CellOutput)


class NotebookAutosave:
    """A reader of the stream of events that keeps the notebook of a run, and those of its children, up to date.

    Args:
        path: of the notebook; those of children are written to a folder beside it.
        first_line: the fields of the first line of the log, except those of the run.
        redact: takes secrets out of text.
        seconds: between two writes during the run.
        quota: of the files of the run.

    Raises:
        OSError: from the next call, once: it could not be written. The run is not affected.
    """

    def __init__(
        self,
        path: Path,
        first_line: Mapping[str, Any],
        redact: Redactor | None = None,
        *,
        seconds: float = SECONDS,
        quota: Quota | None = None,
    ) -> None:
        self._path = path
        self._identity = identity_of_log(path, first_line)
        self._redact = redact
        self._seconds = seconds
        self._quota = quota or Quota()
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._broken = self._closed = False
        self._thread = threading.Thread(target=self._work, name="rlm-notebook", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"The notebook {self._path}"

    def __call__(self, event: Event) -> None:
        """Take an event; the notebook has it a second later."""
        self._complain()
        if not self._broken and not isinstance(event, _UNREAD):
            self._events.put(event)

    def close(self) -> None:
        """Wait until everything is written. Idempotent."""
        if not self._closed:
            self._closed = True
            self._events.put(None)
            self._thread.join()
        self._complain()

    def _complain(self) -> None:
        failure, self._failure = self._failure, None
        if isinstance(failure, OSError):
            raise failure
        if failure is not None:
            raise OSError(f"the notebook could not be made: {failure!r}") from failure

    # -- the thread

    def _work(self) -> None:
        try:
            made = _Notebooks(self._path.parent, self._identity, self._redact, self._quota)
            with closing(made) as notebooks:
                self._write_while_events_come(notebooks)
        except BaseException as failure:  # noqa: BLE001 (the next call raises it)
            self._failure, self._broken = failure, True

    def _write_while_events_come(self, notebooks: _Notebooks) -> None:
        due = time.monotonic() + min(FIRST_SECONDS, self._seconds)
        while True:
            try:
                event = self._events.get(timeout=max(0.0, due - time.monotonic()) if notebooks.changed else None)
            except queue.Empty:
                due = self._next(notebooks)
                continue
            if event is None:
                break
            notebooks.add(event)
            if time.monotonic() >= due and notebooks.is_worth_reading:
                due = self._next(notebooks)
        if notebooks.changed:
            notebooks.write()

    def _next(self, notebooks: _Notebooks) -> float:
        """Write. Returns the time of the next write, by `time.monotonic`."""
        started = time.monotonic()
        notebooks.write()
        ended = time.monotonic()
        return ended + max(self._seconds, SHARE * (ended - started))


class _Notebooks:
    """The notebooks of a run and of its descendants on disk, and of the run what may still change in memory.

    Attributes:
        changed: whether there are events that no file holds yet.
    """

    def __init__(self, folder: Path, identity: RunIdentity, redact: Redactor | None, quota: Quota) -> None:
        self.changed = False
        self._quota = quota
        self._folder = folder
        self._identity = identity
        self._redact = redact
        self._run = Trajectory()
        self._growing = GrowingNotebook(redact, folder)
        self._events: Counter[tuple[Any, ...]] = Counter()
        self._written: dict[str, int] = {}

    @property
    def is_worth_reading(self) -> bool:
        """Whether a turn has begun."""
        return bool(self._run.turns)

    def close(self) -> None:
        self._growing.close()

    def add(self, event: Event) -> None:
        self.changed = True
        event = event if self._redact is None else self._redact.clean(event)
        if isinstance(event, events.RunStarted) and self._identity.started is None:
            began = datetime.now().astimezone().isoformat(timespec="milliseconds")
            self._identity = replace(self._identity, started=began)
        self._run.add(event)
        if isinstance(event, events.IterationStarted) and (past := self._run.take_past()).turns:
            self._write_children(past)
            self._growing.add(past, self._identity)
        path: tuple[Any, ...] = ()
        while isinstance(event, events.ChildEvent):
            self._events[path] += 1
            path, event = (*path, (event.cell, event.query, event.index)), event.event
        self._events[path] += 1

    def write(self) -> None:
        """Write the notebooks that changed."""
        if self._is_new(self._identity):
            self._save(self._identity, self._growing.pieces(self._run, self._identity))
        self._write_children(self._run)
        self.changed = False

    def _write_children(self, run: Trajectory) -> None:
        nbformat = load_nbformat()  # takes long, and the start of a run does not wait for it
        for child, identity in islice(runs(run, self._identity), 1, None):
            if self._is_new(identity):
                text: str = nbformat.writes(notebook_of(child, identity, self._redact))
                self._save(identity, [text.encode("utf-8")])

    def _is_new(self, identity: RunIdentity) -> bool:
        return self._written.get(identity.file) != self._events[identity.child]

    def _save(self, identity: RunIdentity, content: Iterable[bytes]) -> None:
        """Write a notebook, and before the first one the file that replays them."""
        if not self._written:
            write_replay_code(self._folder)
        path = self._folder / identity.file
        path.parent.mkdir(exist_ok=True)  # of a child
        write_pieces(path, self._within_quota(identity.file, content))
        self._written[identity.file] = self._events[identity.child]

    def _within_quota(self, name: str, content: Iterable[bytes]) -> Iterator[bytes]:
        size = 0
        for piece in content:
            size += len(piece)
            yield piece
        if not self._quota.replace(name, size):
            limit = f"the files of the run may have {self._quota.limit:,} bytes (max_log_bytes)"
            raise OSError(errno.EFBIG, limit)
