"""The log of a run: one line for each event, written when it happens, before anybody acts on it.

What is written stays when the process is killed. Nothing is ever written twice or changed.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from rlm_kernel.records import Prompt
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event
from rlm_kernel.trajectory.log import contexts, documented, lines
from rlm_kernel.trajectory.log.redaction import Redactor
from rlm_kernel.trajectory.tree import Trajectory

IMAGES = "images"


class LogFile:
    """A reader of the stream of events that appends them to a file.

    Args:
        path: of the file; its folder is made when needed.
        about: what the first line says besides the run: documented fields, configuration, version.
        redact: takes secrets out of text.

    Raises:
        OSError: from any call: it could not be written.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], redact: Redactor) -> None:
        self._path = path
        self._about = dict(about)
        self._redact = redact
        self._run = Trajectory()
        self._lock = threading.Lock()
        self._storing: threading.Thread | None = None
        self._failure: OSError | None = None
        self._told = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")

    def __repr__(self) -> str:
        return f"The log {self._path}"

    def __call__(self, event: Event) -> None:
        """Write the line of an event, if it has one."""
        try:
            self._take(event)
        except OSError:
            self._told = True
            raise

    def _take(self, event: Event) -> None:
        if type(event) not in lines.KINDS or self._file.closed:
            return
        event = self._redact.event(event)
        if (line := lines.line_of(event)) is None:  # of a child's piece of text or output
            return
        self._run.add(event)
        self._store_pictures(event)
        if isinstance(event, events.RunStarted):
            about = self._redact.data(self._about)
            self._write({**line, "timestamp": _now(), "root_model": event.model, **about})
            self._store(event.context)
            return
        if isinstance(event, events.IterationFinished):
            turn = documented.iteration(self._run.turns[-1], documented.LOGGED_CHARACTERS)
            line = {**line, "timestamp": _now(), **turn}
        self._write(line)

    def close(self) -> None:
        """Wait for what is being written."""
        if self._storing is not None:
            self._storing.join()
        self._run = Trajectory()
        try:
            self._file.close()
        except OSError as error:  # on a full disk once more, with what could not be written before
            self._failure = self._failure or error
        if self._failure is not None and not self._told:
            self._told = True
            raise self._failure

    def _write(self, line: Mapping[str, Any]) -> None:
        text = lines.text_of(dict(line))
        with self._lock:
            self._file.write(text.encode("ascii") + b"\n")
            self._file.flush()

    def _store_pictures(self, event: Event) -> None:
        """Pictures of sub-calls stand beside the log, each once."""
        while isinstance(event, events.ChildEvent):
            event = event.event
        if isinstance(event, events.SubcallStarted):
            for image in filter(attrgetter("data"), event.images):  # a run that goes on has only their hashes
                name = f"{image.sha256}.{image.media_type.removeprefix('image/')}"
                contexts.write_once(self._path.parent / IMAGES / name, image.data)

    def _store(self, context: Prompt) -> None:
        """Store the input beside the run: hashing and writing it must not stop the engine's loop."""

        def work() -> None:
            try:
                stored = contexts.store(context, self._path.parent, self._redact)
                self._write({"type": "context", **dataclasses.asdict(stored)})
            except OSError as error:
                self._failure = error
            except Exception as error:  # noqa: BLE001 (whoever closes the log gets it)
                self._failure = OSError(f"the context could not be stored: {error!r}")

        self._storing = threading.Thread(target=work, name="rlm-context", daemon=True)
        self._storing.start()


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
