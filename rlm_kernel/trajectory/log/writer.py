"""Write the log of a run: its record, one line for each event, and its turns in the documented format.

A line is written before any other reader gets the event. The lines survive when the process is killed. No line is
written twice or changed.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from rlm_kernel.text import clip
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event
from rlm_kernel.trajectory.log import clipping, context_store, jsonl, prompt_store, reference_format
from rlm_kernel.trajectory.log.atomic_files import is_there, write_whole
from rlm_kernel.trajectory.log.file_names import RECORD, file_beside
from rlm_kernel.trajectory.log.line_file import SIGNATURE_BYTES, LineFile
from rlm_kernel.trajectory.log.quota import Quota
from rlm_kernel.trajectory.log.redaction import Redactor
from rlm_kernel.trajectory.tree import Trajectory
from rlm_kernel.types import Image, Input

IMAGES = "images"

MAX_LINE_BYTES = 2**26
"""Maximum of one event. From a larger one on, the log is clipped as if its quota were used up."""


class LogWriter:
    """A reader of the stream of events that appends them to the record, and the turns to the file of turns.

    Args:
        path: of the file of turns; the record is beside it. The folder is made when needed.
        about: fields of the first line besides the run: documented fields, configuration, version.
        redact: removes secrets from text.
        quota: of the files of the run.
        key: to sign the record with; None: it is not signed.
        tell: called with a message for the user.

    Attributes:
        record: the record.
        path: of the record.

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
        self.record = LineFile(file_beside(path, RECORD), key)
        self._turns = LineFile(path)
        self.path = self.record.path
        self._about = dict(about)
        self._redact = redact
        self._quota = quota or Quota()
        self._tell = tell
        self._context: Input | None = None
        self._pictures: dict[Hashable, tuple[Image, ...]] = {}
        self._clipped = False
        self._run = Trajectory()
        self._lock = threading.Lock()
        self._storing: threading.Thread | None = None
        self._failure: OSError | None = None
        self._reported = False

    @property
    def size(self) -> int:
        """Bytes of all lines of the record so far."""
        return self.record.size

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
        if type(event) not in jsonl.KINDS or self.record.closed:
            return
        event = self._redact.event(event)
        if (line := jsonl.line_of(event)) is None:  # of a child's piece of text or output
            return
        self._run.add(event)
        self._store_call_files(event)
        if isinstance(event, events.RunStarted):
            about = self._redact.data(self._about)
            first = {**line, "timestamp": _now(), "root_model": event.model, **about}
            self._write(first)
            self._write(reference_format.metadata_line(first), self._turns)
            self._context = event.context
            self._store_context(event.context)
            return
        self._write(line)
        match event:
            case events.IterationFinished():
                self._write_turn()
            case events.RunFinished(completion=completion):  # the last word, after all turns
                self._write_turn(answer=completion.response)
            case events.RunFailed(error=error):
                self._write_turn(failure=f"{type(error).__name__}: {error}")
            case events.MessageFinished(error=str(failure)):
                self._write_turn(failure=failure)

    def _write_turn(self, answer: str | None = None, failure: str = "") -> None:
        """Write the latest turn, if it has a reply and was not written.

        Args:
            answer: of the run, if the turn does not say it.
            failure: why the turn did not end.
        """
        run, self._run = self._run, Trajectory()
        if not run.turns or run.turns[-1].reply is None:
            return
        turn = reference_format.iteration(run.turns[-1], reference_format.LOGGED_CHARACTERS, failure=failure)
        if answer is not None:
            turn["final_answer"] = clip(answer, reference_format.LOGGED_CHARACTERS)
        self._write({"type": "iteration", "timestamp": _now(), **turn}, self._turns)

    def close(self) -> None:
        """Wait for what is being written."""
        if self._storing is not None:
            self._storing.join()
        self._run, self._context, self._pictures = Trajectory(), None, {}
        for file in (self.record, self._turns):
            try:
                file.close()
            except OSError as error:
                self._failure = self._failure or error
        if self._failure is not None and not self._reported:
            self._reported = True
            raise self._failure

    # -- the lines

    def _write(self, line: Mapping[str, Any], file: LineFile | None = None) -> None:
        """Write a line of the record, or of another file."""
        file, text = file or self.record, jsonl.text_of(dict(line))
        with self._lock:
            if file.closed:
                return
            self._restore(file)
            fits = not self._clipped and len(text) < MAX_LINE_BYTES
            if fits and self._quota.take(len(text) + SIGNATURE_BYTES):
                file.append(text)
                return
            self._tell_that_it_is_clipped()
            if line["type"] in clipping.KEPT:
                text = jsonl.text_of(clipping.clipped(json.loads(text)))
                if self._quota.take(len(text) + SIGNATURE_BYTES, last=True) or line["type"] in clipping.LAST:
                    file.append(text)

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

    def _restore(self, file: LineFile) -> None:
        """Write a file again if it was removed."""
        if not file.restore() or file is self._turns:  # the turns need no other files, so nothing is lost
            return
        self._tell(
            f"The log {file.path} was removed during the run. It was written again and is complete, but the earlier "
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
