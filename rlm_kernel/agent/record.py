"""The record of a conversation: the runs of its messages as one run, in one log and one notebook."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event
from rlm_kernel.types import RLMChatCompletion, TextFile, UsageSummary

if TYPE_CHECKING:
    from rlm_kernel.trajectory.log.logger import RunLog


class ConversationRecord:
    """A reader of the events of one run after the other. Turns are counted through, and the clock goes on.

    Args:
        start: begins the log; called with the first event.

    Attributes:
        usage: of all messages together.
        seconds: of all messages together.
        messages: how many there were.
        answer: the latest one.
    """

    def __init__(self, start: Callable[[], RunLog] | None) -> None:
        self.usage = UsageSummary()
        self.seconds = 0.0
        self.messages = 0
        self.answer = ""
        self._start = start
        self._log: RunLog | None = None
        self._text = self._model = ""
        self._turns = self._before = 0
        self._began = time.monotonic()
        self._base = 0.0
        self._first: events.RunStarted | None = None
        self._has_kernel = False

    @property
    def log(self) -> RunLog | None:
        """The log, once it has begun."""
        return self._log

    def begin(self, text: str, model: str = "") -> None:
        """The next run answers this message. `model`: the root model that answers it."""
        self._text, self._model, self._before = text, model, self._turns
        self._base = time.monotonic() - self._began
        self.messages += 1

    def __call__(self, event: Event) -> None:
        """Take an event of the current message.

        Raises:
            OSError: the log or the notebook could not be written; it gets no further events.
        """
        match event:
            case events.RunStarted():
                if self._first is None:
                    self._pass(event)
                first = self._before + 1
                self._pass(events.MessageStarted(time=event.time, iteration=first, text=self._text, model=self._model))
            case events.RunFinished():
                self.answer = event.completion.response
                self._end(event, self.answer, None)
            case events.RunFailed():
                self._end(event, None, f"{type(event.error).__name__}: {event.error}")
            case events.KernelReady() if self._has_kernel:
                return
            case _:
                iteration = getattr(event, "iteration", None)
                changes: dict[str, Any] = {} if iteration is None else {"iteration": iteration + self._before}
                self._pass(replace(event, **changes))

    def repeat(self, recorded: Iterable[Event]) -> None:
        """Write the events of an earlier record again, as the beginning of this one."""
        seconds = 0.0
        for event in recorded:
            seconds = max(seconds, event.time)
            self.messages += isinstance(event, events.MessageStarted)
            if isinstance(event, events.MessageFinished) and event.answer is not None:
                self.answer = event.answer
            self._pass(event)
        self._began = time.monotonic() - seconds

    async def close(self) -> None:
        """End the record, and wait until it is written. Idempotent."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """`close` for synchronous callers."""
        log, self._start = self._log, None
        if log is None or self._first is None:
            return
        seconds, first = time.monotonic() - self._began, self._first
        given = first.context.path if isinstance(first.context, TextFile) else first.context
        ended = RLMChatCompletion(first.model, given, self.answer, self.usage, seconds)
        self._base = 0.0
        self._pass(events.RunFinished(time=seconds, completion=ended))
        self._log = None
        log.close()

    def _end(self, event: Event, answer: str | None, error: str | None) -> None:
        self._turns = max(self._turns, self._before + 1)
        self.seconds += event.time
        self._pass(events.MessageFinished(time=event.time, iteration=self._turns, answer=answer, error=error))

    def _pass(self, event: Event) -> None:
        """Pass an event to the files, with the time since the conversation began."""
        self._turns = max(self._turns, getattr(event, "iteration", 0))
        self._has_kernel |= isinstance(event, events.KernelReady)
        self._first = self._first or (event if isinstance(event, events.RunStarted) else None)
        if self._log is None and self._start is not None:
            self._log, self._start = self._start(), None
        if self._log is None:
            return
        event, failure = replace(event, time=event.time + self._base), None
        for reader in list(self._log.readers):
            try:
                reader(event)
            except OSError as error:
                self._log.readers.remove(reader)
                failure = failure or error
        if failure is not None:
            raise failure
