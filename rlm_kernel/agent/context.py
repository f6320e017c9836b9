"""`AgentContext`: what an agent knows between two messages, as plain data."""

from __future__ import annotations

import json
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlm_kernel.engine.tools import Tool, tools_of
from rlm_kernel.errors import ConfigError, RecordingError
from rlm_kernel.trajectory.log.atomic_files import write_whole
from rlm_kernel.untrusted import json_text

MAX_FILE_BYTES = 1 << 28
MAX_NEWS_BYTES = 16_000_000
"""Of the context that comes with one message: it reaches the kernel as one answer of a tool."""

AgentMessage = dict[str, Any]
"""`role` (user or assistant), `content`, `timestamp` (seconds since 1970) and `metadata`."""


class AgentContext:
    """The memory of an agent.

    Args:
        agent_id: its name; None: a random one.
        max_history_size: messages that the host keeps; the kernel keeps all of them in `history`.

    Attributes:
        agent_id: as given.
        context_data: the context, plain data by key. Change it with `add_context`.
        tools: the functions that the agent may call, by name. Change them with `register_tool`.
        metadata: plain data of your own; saved with the rest.

    Raises:
        ConfigError: an argument is wrong.
    """

    def __init__(self, agent_id: str | None = None, max_history_size: int = 100) -> None:
        if not isinstance(max_history_size, int) or isinstance(max_history_size, bool) or max_history_size < 1:
            raise ConfigError(f"max_history_size is a whole number from 1, not {max_history_size!r}.")
        if not isinstance(agent_id, str | None):
            raise ConfigError(f"agent_id is a str or None, not {type(agent_id).__name__}.")
        self.agent_id = agent_id or secrets.token_hex(16)
        self.max_history_size = max_history_size
        self.context_data: dict[str, Any] = {}
        self.tools: dict[str, Tool] = {}
        self.metadata: dict[str, Any] = {}
        self.dropped = 0
        self._messages: deque[AgentMessage] = deque(maxlen=max_history_size)

    @property
    def conversation_history(self) -> list[AgentMessage]:
        """The newest messages, oldest first."""
        return [{**message, "metadata": dict(message["metadata"])} for message in self._messages]

    def get_recent_history(self, limit: int = 10) -> list[AgentMessage]:
        """The newest messages, `limit` at most."""
        return self.conversation_history[-limit:] if limit > 0 else self.conversation_history

    def add_message(self, role: str, content: str, metadata: Mapping[str, Any] | None = None) -> AgentMessage:
        """Add a message, and drop the oldest one if there are too many."""
        self.dropped += len(self._messages) == self.max_history_size
        message = {"role": role, "content": content, "timestamp": time.time(), "metadata": dict(metadata or {})}
        self._messages.append(message)
        return message

    def add_context(self, key: str, value: Any) -> Any:
        """Keep a value under a key. Returns the value as plain data.

        Raises:
            ConfigError: the key is not a text, or the value is not plain data.
        """
        if not isinstance(key, str):
            raise ConfigError(f"The key of a context is a str, not {type(key).__name__}.")
        self.context_data[key] = plain = _plain(value, f"The context {key!r}")
        return plain

    def register_tool(self, name: str, function: Callable[..., Any]) -> Tool:
        """Add a function that the agent may call, sync or async.

        Raises:
            ConfigError: the name cannot be used, or it is no function.
        """
        content = function["tool"] if isinstance(function, dict) and "tool" in function else function
        if not callable(content):
            raise ConfigError(
                f"The tool {name!r} must be a function, not {type(content).__name__}: add_context() takes data."
            )
        (tool,) = tools_of({name: function}, "tools")
        self.tools[name] = tool
        return tool

    def to_dict(self) -> dict[str, Any]:
        """The memory as plain data; of the tools only their names."""
        return {
            "agent_id": self.agent_id,
            "conversation_history": self.conversation_history,
            "context_data": _plain(self.context_data, "The context"),
            "tools": list(self.tools),
            "metadata": _plain(self.metadata, "metadata"),
        }

    def save(self, path: str | Path) -> None:
        """Write the memory to a JSON file. It holds no code.

        Raises:
            ConfigError: `metadata` is not plain data.
            OSError: it cannot be written.
        """
        write_whole(Path(path), json.dumps(self.to_dict(), indent=1).encode("ascii"))

    def load(self, path: str | Path) -> None:
        """Replace the memory by that of a JSON file, which may be anyone's: it is read as data, and nothing in it runs.

        Tools are functions of this program, so they stay as they are.

        Raises:
            RecordingError: it is not the memory of an agent.
            OSError: it cannot be read.
        """
        try:
            found = _checked(json_text.load(Path(path), max_bytes=MAX_FILE_BYTES))
        except (ValueError, KeyError, TypeError) as error:
            raise RecordingError(
                f"{str(path)!r} is not the memory of an agent: {error}. save_context() writes one."
            ) from error
        self.agent_id, self.context_data, self.metadata = found["agent_id"], found["context_data"], found["metadata"]
        self.take_over(found["conversation_history"], anew=True)

    def take_over(self, messages: list[AgentMessage], *, anew: bool = False) -> None:
        """Add messages of a record. `anew`: in the place of all others."""
        if anew:
            self.dropped = 0
            self._messages.clear()
        self.dropped += max(0, len(self._messages) + len(messages) - self.max_history_size)
        self._messages.extend(messages)


def _plain(value: Any, what: str) -> Any:
    """A copy of the value as JSON holds it."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{what} is not plain data, which a conversation is saved as: {error}. Give text, numbers, lists and "
            "dicts; for anything else register a tool that works with it."
        ) from error


def _checked(found: Any) -> dict[str, Any]:
    """The content of a file, or a ValueError, KeyError or TypeError."""
    known = {"agent_id": str, "conversation_history": list, "context_data": dict, "metadata": dict}
    for name, kind in known.items():
        if not isinstance(found[name], kind):
            raise TypeError(f"{name} is not a {kind.__name__}")
    messages = [message_of(message) for message in found["conversation_history"]]
    return {**{name: found[name] for name in known}, "conversation_history": messages}


def message_of(message: Any) -> AgentMessage:
    """A message of a file, with its known fields only.

    Raises:
        KeyError, TypeError, ValueError: it is not a message.
    """
    role, content, timestamp = message["role"], message["content"], message.get("timestamp", 0)
    if role not in ("user", "assistant") or not isinstance(content, str):
        raise ValueError(f"a message has the role user or assistant and a text, not {role!r}")
    metadata = message.get("metadata", {})
    if not isinstance(timestamp, int | float) or not isinstance(metadata, dict):
        raise TypeError("timestamp is not a number, or metadata is not an object")
    return {"role": role, "content": content, "timestamp": timestamp, "metadata": metadata}
