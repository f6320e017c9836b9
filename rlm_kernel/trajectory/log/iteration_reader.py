"""Give the turns of a run to the `log` of a user's logger, one `RLMIteration` after another."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from rlm_kernel._async import start_in_thread
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event
from rlm_kernel.trajectory.log import reference_format
from rlm_kernel.trajectory.log.iterations import RLMIteration, RLMMetadata
from rlm_kernel.trajectory.log.redaction import Redactor
from rlm_kernel.trajectory.tree import Trajectory


class TurnLogger(Protocol):
    """A user's logger. Three more methods are optional: `log_metadata`, `clear_iterations`, `start`."""

    def log(self, iteration: RLMIteration) -> object:
        """Take a turn."""


class IterationReader:
    """A reader of the stream of events that calls a logger. What `log` raises ends the run.

    `log` has a thread of its own, so that a slow one delays neither other runs nor the deadline of its run. The next
    turn waits for it: of a run one `log` is called at a time.

    The runs of children are in the `rlm_calls` of the turn that started them.

    Args:
        logger: an object with `log`, and perhaps `clear_iterations`.
        redact: removes secrets.
    """

    ends_run = True

    def __init__(self, logger: Any, redact: Redactor) -> None:
        self._logger = logger
        self._redact = redact
        self._run = Trajectory()
        self._messages = reference_format.ReadMessages()
        self._logging: Future[object] | None = None

    def __repr__(self) -> str:
        return f"The logger {self._logger!r}"

    def __call__(self, event: Event) -> None:
        """Take an event; at the end of a turn, call `log`."""
        event = self._redact.event(event)
        match event:
            case events.RunStarted():
                if (clear := getattr(self._logger, "clear_iterations", None)) is not None:
                    clear()
                return
            case events.Compacted():
                self._messages.summarise(event.reply.text)
                return
            case events.RunFinished():
                if self._run.turns and self._run.turns[-1].reply is not None:  # the last word, after all turns
                    self._log(event.completion.response)
                return
        self._run.add(event)
        if isinstance(event, events.IterationFinished):
            self._log()

    def _log(self, answer: str | None = None) -> None:
        turn = self._run.turns[-1]
        fields = reference_format.iteration(turn)
        fields["prompt"] = [dict(message) for message in self._messages.add(turn)]
        self._run = Trajectory()
        iteration = RLMIteration.from_dict(fields if answer is None else {**fields, "final_answer": answer})
        self._logging = start_in_thread(partial(self._logger.log, iteration))

    async def end_log(self) -> None:
        """Wait for the `log` that is running. Raises what it raises."""
        logging, self._logging = self._logging, None
        if logging is not None:
            await asyncio.wrap_future(logging)


def wants_iterations(logger: object, base: type) -> bool:
    """Whether a logger has a `log` of its own, and not that of `base`."""
    log = getattr(logger, "log", None)
    return callable(log) and getattr(log, "__func__", log) is not vars(base)["log"]


def metadata_of(configuration: Mapping[str, Any], root_model: str) -> RLMMetadata:
    """What `log_metadata` receives. `configuration`: the arguments of the `RLM`, without secrets."""
    fields = reference_format.named(reference_format.metadata(configuration, root_model))
    return RLMMetadata(**{**fields, **{name: fields[name] or {} for name in ("backend_kwargs", "environment_kwargs")}})
