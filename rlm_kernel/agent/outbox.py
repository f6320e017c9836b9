"""What the kernel of an agent does not have yet. The first cell of each message takes it (`take_message()`)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.agent.context import MAX_NEWS_BYTES, AgentContext, AgentMessage
from rlm_kernel.engine.agent_tools import TAKE_MESSAGE
from rlm_kernel.engine.tools import Tool
from rlm_kernel.errors import ConfigError
from rlm_kernel.trajectory.events import CellFinished, Event


@dataclass(slots=True)
class Outbox:
    """What is new for the kernel since the last message that it took.

    Attributes:
        memory: of the agent.
        messages: those that the kernel does not have.
        reset: whether its context and history are replaced.
    """

    memory: AgentContext
    messages: list[AgentMessage] = field(default_factory=list)
    reset: bool = False
    _context: dict[str, Any] = field(default_factory=dict)
    _tools: dict[str, Tool] = field(default_factory=dict)
    _sent: tuple[int, dict[str, Any], dict[str, Tool]] | None = None

    def took_context(self) -> None:
        """The kernel has the whole context of the memory: it began with it, or a record says so."""
        self._context = dict(self.memory.context_data)

    @property
    def new_context(self) -> dict[str, Any]:
        """The values that the kernel does not have."""
        known = self._context
        return {
            key: value
            for key, value in self.memory.context_data.items()
            if self.reset or key not in known or known[key] is not value
        }

    def check(self) -> None:
        """Check that the news can be sent.

        Raises:
            ConfigError: it is too much, or not plain data.
        """
        try:
            size = len(json.dumps(self.new_context))
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"The context is not plain data: {error}. Change it with add_context().") from error
        if size > MAX_NEWS_BYTES:
            raise ConfigError(
                f"The new context has {size:,} bytes, and a message takes {MAX_NEWS_BYTES:,}: add it before the first "
                "message, or in several messages."
            )

    def news(self) -> dict[str, Any]:
        """What is new; the content of the tool `_next_message`."""
        context = self.new_context
        tools = {name: tool for name, tool in self.memory.tools.items() if self._tools.get(name) is not tool}
        self._sent = len(self.messages), context, tools
        return {
            "agent_id": self.memory.agent_id,
            "history": self.messages[:],
            "context": context,
            "tools": [tool.card() for tool in tools.values()],
            "reset": self.reset,
        }

    def on_event(self, event: Event) -> None:
        """Read the events of a run: the kernel has taken the latest news, or a record of it."""
        took = isinstance(event, CellFinished) and event.result.code == TAKE_MESSAGE and event.result.status == "ok"
        if not took or self._sent is None:
            return
        count, context, tools = self._sent
        del self.messages[:count]
        self._context.update(context)
        self._tools.update(tools)
        self.reset, self._sent = False, None

    def keep(self, key: str, value: Any) -> None:
        """Keep what a cell added to the context; the content of the tool `_keep_in_context`."""
        self._context[key] = self.memory.add_context(key, value)
