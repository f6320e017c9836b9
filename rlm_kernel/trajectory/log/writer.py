"""Write the log of a run: one line for each event, before any other reader gets the event.

The lines survive when the process is killed. No line is written twice or changed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from shutil import copyfileobj
from typing import Any

from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event
from rlm_kernel.trajectory.log import clipping, context_store, jsonl, prompt_store, reference_format
from rlm_kernel.trajectory.log.atomic_files import is_there, write_whole
from rlm_kernel.trajectory.log.quota import Quota
from rlm_kernel.trajectory.log.redaction import Redactor
from rlm_kernel.trajectory.log.signature import Chain
from rlm_kernel.trajectory.tree import Trajectory
from rlm_kernel.types import Image, Input

IMAGES = "images"

MAX_LINE_BYTES = 2**26
"""Maximum of one event. From a larger one on, the log is clipped as if its quota were used up."""

_SIGNATURE_BYTES = 80
"""At the end of a line, its newline included."""


class LogWriter:
    """A reader of the stream of events that appends them to a file.

    Args:
        path: of the file; its folder is made when needed.
        about: fields of the first line besides the run: documented fields, configuration, version.
        redact: removes secrets from text.
        quota: of the files of the run.
        key: to sign the lines with; None: they are not signed.
        tell: called with a message for the user.

    Attributes:
        path: of the file.
        size: bytes of all lines so far.

    Raises:
        OSError: from any call: it could not be written.
    """

    def __init__(
        self,
        path: Path,
        about: Mapping[str, Any],
        redact: Redactor,
        *,
        quota: Quota | None = None,
        key: bytes | None = None,
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.path = path
        self.size = 0
        self._about = dict(about)
        self._redact = redact
        self._quota = quota or Quota()
        self._chain = None if key is None else Chain(key)
        self._tell = tell
        self._context: Input | None = None
        self._pictures: dict[Hashable, tuple[Image, ...]] = {}
        self._clipped = False
        self._run = Trajectory()
        self._lock = threading.Lock()
        self._storing: threading.Thread | None = None
        self._failure: OSError | None = None
        self._reported = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)

    def __repr__(self) -> str:
        return f"The log {self.path}"

    def __call__(self, event: Event) -> None:
        """Write the line of an event, if it has one."""
        try:
            self._take(event)
        except OSError:
            self._reported = True
            raise

    def _take(self, event: Event) -> None:
        if type(event) not in jsonl.KINDS or self._file.closed:
            return
        event = self._redact.event(event)
        if (line := jsonl.line_of(event)) is None:  # of a child's piece of text or output
            return
        self._run.add(event)
        self._store_call_files(event)
        if isinstance(event, events.RunStarted):
            about = self._redact.data(self._about)
            self._write({**line, "timestamp": _now(), "root_model": event.model, **about})
            self._context = event.context
            self._store_context(event.context)
            return
        if isinstance(event, events.IterationFinished):
            turn = reference_format.iteration(self._run.turns[-1], reference_format.LOGGED_CHARACTERS)
            line = {**line, "timestamp": _now(), **turn}
            self._run = Trajectory()  # its turn is written
        self._write(line)

    def close(self) -> None:
        """Wait for what is being written."""
        if self._storing is not None:
            self._storing.join()
        self._run, self._context, self._pictures = Trajectory(), None, {}
        try:
            self._file.close()
        except OSError as error:
            self._failure = self._failure or error
        if self._failure is not None and not self._reported:
            self._reported = True
            raise self._failure

    # -- the lines

    def _write(self, line: Mapping[str, Any]) -> None:
        text = jsonl.text_of(dict(line))
        with self._lock:
            if self._file.closed:
                return
            self._restore()
            fits = not self._clipped and len(text) < MAX_LINE_BYTES
            if fits and self._quota.take(len(text) + _SIGNATURE_BYTES):
                self._append(text)
                return
            self._tell_that_it_is_clipped()
            if line["type"] in clipping.KEPT:
                text = jsonl.text_of(clipping.clipped(json.loads(text)))
                if self._quota.take(len(text) + _SIGNATURE_BYTES, last=True) or line["type"] in clipping.LAST:
                    self._append(text)

    def _append(self, text: str) -> None:
        """Write a line whole, or not at all: then the log ends before it."""
        encoded, size = text.encode("ascii"), os.fstat(self._file.fileno()).st_size
        left = memoryview((encoded if self._chain is None else self._chain.signed(encoded)) + b"\n")
        try:
            while left:
                left = left[self._file.write(left) :]
            self.size += len(encoded)
        except OSError:
            with suppress(OSError), self._file:
                self._file.truncate(size)
            raise

    def _tell_that_it_is_clipped(self) -> None:
        if not self._clipped:
            self._clipped = True
            limit = (
                f"max_log_bytes={self._quota.limit:,}" if self._quota.limit else f"{MAX_LINE_BYTES:,} bytes an event"
            )
            self._tell(
                f"The files of this run are as large as they may be ({limit}). It continues, but its log is now "
                "clipped, and it can be replayed and resumed up to here: give RLMLogger more max_log_bytes to keep all."
            )

    def _restore(self) -> None:
        """Write the log again if it was removed: its content is still in the open file."""
        if os.fstat(self._file.fileno()).st_nlink:
            return
        removed = self._file
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b", buffering=0)
        with removed:
            removed.seek(0)
            copyfileobj(removed, self._file)
        self._tell(
            f"The log {self.path} was removed during the run. It was written again and is complete, but the earlier "
            "pictures and large prompts of sub-calls are lost."
        )
        if self._context is not None:
            self._store_context(self._context)

    # -- files beside the log

    def _store_call_files(self, event: Event) -> None:
        """Store the large prompts and the pictures of a call, each once, when a model was called."""
        run: tuple[Hashable, ...] = ()
        while isinstance(event, events.ChildEvent):
            run, event = (*run, event.cell, event.query, event.index), event.event
            if isinstance(event, events.RunStarted):
                self._store_prompt(event.context)  # the input of a child is the prompt that it answers
        match event:
            case events.SubcallStarted(images=images) if images:
                self._pictures[*run, event.cell, event.query] = images
            case events.SubcallAnswered(attempts=attempts) if attempts:
                self._store_prompt(event.prompt)
                self._store_pictures(self._pictures.pop((*run, event.cell, event.query), ()))
            case events.SubcallFinished():
                self._pictures.pop((*run, event.cell, event.query), None)

    def _store_pictures(self, images: Iterable[Image]) -> None:
        for image in filter(attrgetter("data"), images):  # a resumed run has only their hashes
            name = f"{image.sha256}.{image.media_type.removeprefix('image/')}"
            self._store(f"{IMAGES}/{name}", image.data)

    def _store_prompt(self, prompt: Input) -> None:
        content = prompt_store.encoded(prompt) if isinstance(prompt, str) else None
        if content is not None:
            self._store(prompt_store.file_of(content), content)

    def _store(self, name: str, content: bytes) -> None:
        path = self.path.parent / name
        if is_there(path, len(content)):
            return
        if not self._clipped and self._quota.take(len(content)):
            write_whole(path, content)
        else:
            self._tell_that_it_is_clipped()

    def _store_context(self, context: Input) -> None:
        """Store the input in a thread, because hashing and writing it must not block the engine's loop."""

        def work() -> None:
            try:
                stored = context_store.store(context, self.path.parent, self._redact, self._quota.take)
                self._write({"type": "context", **dataclasses.asdict(stored)})
            except OSError as error:
                self._failure = error
            except Exception as error:  # noqa: BLE001 (closing the log raises it)
                self._failure = OSError(f"the context could not be stored: {error!r}")

        self._storing = threading.Thread(target=work, name="rlm-context", daemon=True)
        self._storing.start()


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
