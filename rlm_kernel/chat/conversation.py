"""The agent of a chat, with its context and its turns. Nothing here draws."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rlm_kernel import inputs
from rlm_kernel.agent.agent import AgentRLM
from rlm_kernel.engine.agent_tools import TAKE_MESSAGE
from rlm_kernel.engine.budget import Limits
from rlm_kernel.errors import ConfigError
from rlm_kernel.text import format_cost, format_duration, format_tokens
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event
from rlm_kernel.types import UsageSummary

MAX_SHOWN_TURNS = 20
"""The newest turns whose run can be shown again; older ones are in the log."""

STOPPED = "stopped"
"""The error of a turn that the person has stopped."""

_NOT_SHOWN = (
    events.RunStarted,
    events.KernelReady,
    events.ModelText,
    events.CellOutput,
    events.ChildEvent,
    events.MessageStarted,
    events.RunFinished,
    events.RunFailed,
)


@dataclass(slots=True)
class Turn:
    """A message and its answer.

    Attributes:
        message: of the user.
        answer: of the model; what there is of it, if `error` says why it has no end.
        error: one line, or empty.
        run: the events that the run is drawn from, for the newest turns.
        cells: how many the model ran.
        subcalls: how many prompts they asked.
        usage: of the run.
        seconds: it took.
    """

    message: str
    answer: str = ""
    error: str = ""
    run: list[Event] = field(default_factory=list)
    cells: int = 0
    subcalls: int = 0
    usage: UsageSummary = field(default_factory=UsageSummary)
    seconds: float = 0.0

    def take(self, event: Event) -> None:
        """Keep an event of the run, if it is drawn."""
        own = isinstance(event, events.CellStarted | events.CellFinished) and _code_of(event) == TAKE_MESSAGE
        if own or isinstance(event, _NOT_SHOWN):
            return
        self.cells += isinstance(event, events.CellStarted)
        self.subcalls += event.count if isinstance(event, events.SubcallStarted) else 0
        self.run.append(event)

    @property
    def facts(self) -> str:
        """The run in a line: ``2 cells · 5 sub-calls · 1,204 tokens in, 96 out · $0.0012 · 12 s``."""
        used = self.usage
        counted = [(self.cells, "cell"), (self.subcalls, "sub-call")]
        facts = [f"{count:,} {what}{'s' * (count != 1)}" for count, what in counted if count]
        if used.total_input_tokens or used.total_output_tokens:
            facts.append(format_tokens(used.total_input_tokens, used.total_output_tokens, used.estimated_tokens))
        if used.total_cost:
            facts.append(format_cost(used.total_cost))
        return " · ".join([*facts, format_duration(self.seconds)])


def _code_of(event: events.CellStarted | events.CellFinished) -> str:
    return event.code if isinstance(event, events.CellStarted) else event.result.code


class Conversation:
    """An agent, made when it is needed: a key that is missing is found again when it is there.

    Args:
        make: makes the agent.
        max_bytes: of one path of the context.

    Attributes:
        turns: all of this conversation, those before it was resumed included.
        sources: the paths of the context, and the keys that each has there.
    """

    def __init__(self, make: Callable[[], AgentRLM], max_bytes: int = inputs.MAX_BYTES) -> None:
        self.turns: list[Turn] = []
        self.sources: dict[str, list[str]] = {}
        self._make = make
        self._max_bytes = max_bytes
        self._agent: AgentRLM | None = None
        self._waiting: dict[str, str] = {}
        self._model = ""

    @property
    def agent(self) -> AgentRLM | None:
        """The agent, if it is made."""
        return self._agent

    def open(self) -> AgentRLM:
        """The agent, made by the first call.

        Raises:
            ConfigError: it cannot be made: a key is missing, for example.
        """
        if self._agent is None:
            agent = self._make()
            if self._model:
                agent.use_model(self._model)
            for key, text in self._waiting.items():
                agent.add_context(key, text)
            self._waiting = {}
            self._agent = agent
        return self._agent

    @property
    def model(self) -> str:
        """The root model; empty while nothing says which."""
        return self._model if self._agent is None else self._agent.model

    def use_model(self, name: str) -> None:
        """Ask another model from the next message on.

        Raises:
            ConfigError: the provider has no other models, or cannot take the name.
        """
        if self._agent is not None:
            self._agent.use_model(name)
        self._model = name

    @property
    def context(self) -> Mapping[str, object]:
        """The context by key."""
        return self._waiting if self._agent is None else self._agent.agent_context.context_data

    def add_path(self, path: str, option: str) -> int:
        """Add a file or a folder to the context, or read it again. Returns how many texts it has.

        Args:
            path: of it.
            option: how the user gave it, for messages.

        Raises:
            ConfigError: it cannot be read.
        """
        if path == "-":
            raise ConfigError("A chat reads messages from stdin: name a file or a folder as its context.")
        texts = texts_of(path, inputs.read(os.path.expanduser(path), option, self._max_bytes))  # noqa: PTH111
        for key, text in texts.items():
            if self._agent is None:
                self._waiting[key] = text
            else:
                self._agent.add_context(key, text)
        self.sources[path] = list(texts)
        return len(texts)

    def begin(self, message: str) -> Turn:
        """The next turn."""
        self.turns.append(turn := Turn(message))
        for old in self.turns[:-MAX_SHOWN_TURNS]:
            old.run.clear()
        return turn

    @property
    def usage(self) -> UsageSummary:
        """Tokens and cost so far."""
        return UsageSummary() if self._agent is None else self._agent.usage

    @property
    def limits(self) -> list[str]:
        """The limits that were given, a line for each message and one for the chat."""
        if self._agent is None:
            return []
        both = {"Each message": self._agent.config.limits, "The chat": self._agent.total_limits}
        named = {name: _limits(limits) for name, limits in both.items()}
        return [f"{name} may take {' · '.join(given)}." for name, given in named.items() if given]

    @property
    def log(self) -> Path | None:
        """The log, once there is one."""
        return self._file("log_file_path")

    @property
    def notebook(self) -> Path | None:
        """Where the notebook is, or will be with the first message; None: there is no log."""
        return self._file("notebook_path")

    def _file(self, name: str) -> Path | None:
        logger = None if self._agent is None or not self.turns else self._agent.logger
        path = getattr(logger, name, None)
        return None if path is None else Path(path)

    def close(self) -> None:
        """End the kernel, and complete the log and the notebook."""
        if self._agent is not None:
            self._agent.close()


def _limits(limits: Limits) -> list[str]:
    money = [f"${limits.max_budget:g}"] if limits.max_budget is not None else []
    seconds = [format_duration(limits.max_timeout)] if limits.max_timeout is not None else []
    tokens = [f"{limits.max_tokens:,} tokens"] if limits.max_tokens is not None else []
    return [*money, *seconds, *tokens]


def texts_of(path: str, content: str | dict[str, str]) -> dict[str, str]:
    """The texts of a path by their keys in the context: ``docs/agents.md`` for a file of the folder ``docs``."""
    name = os.path.normpath(path)
    if isinstance(content, str):
        return {name: content}
    return {inner if name == os.curdir else f"{name}/{inner}": text for inner, text in content.items()}
