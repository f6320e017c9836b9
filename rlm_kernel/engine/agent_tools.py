"""The tools behind the names of an agent's REPL (`agent_guest.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlm_kernel.engine.tools import Tool
from rlm_kernel.errors import ConfigError

AGENT = "agent"
"""The documented environment of agents: the REPL of one of the other environments, with more names."""

CODE, NEXT_MESSAGE, KEEP = "AgentNames", "_next_message", "_keep_in_context"
TAKE_MESSAGE = "take_message()"
"""The first cell of each message."""

OWN_NAMES = frozenset({CODE, NEXT_MESSAGE, KEEP})
"""The names of the tools that this module makes."""


def agent_tools(next_message: Callable[[], Mapping[str, Any]], keep: Callable[[str, Any], None]) -> tuple[Tool, ...]:
    """The tools that every agent has. The prompt does not list them.

    Args:
        next_message: the next message, with what is new in the context, the history and the tools.
        keep: keeps a value that a cell adds to the context.
    """
    source = Path(__file__).with_name("agent_guest.py").read_text("utf-8")
    return (
        Tool(NEXT_MESSAGE, "function", next_message, ""),
        Tool(KEEP, "function", keep, ""),
        Tool(CODE, "code", source, ""),
    )


def names_only() -> tuple[Tool, ...]:
    """The tools of a plain `RLM(environment="agent")`, whose context lives in its kernel only."""

    def no_message() -> Mapping[str, Any]:
        raise RuntimeError("A completion has no further message: use AgentRLM for a conversation.")

    def forget(key: str, value: Any) -> None:
        """Nothing to keep on the host."""

    return agent_tools(no_message, forget)


def place_of(name: str, kwargs: Mapping[str, Any] | None) -> tuple[str, dict[str, Any] | None]:
    """The environment below the environment ``"agent"``, and its options; other environments are returned as given.

    Raises:
        ConfigError: `place` is not the name of another environment.
    """
    if name != AGENT:
        return name, kwargs  # type: ignore[return-value]  # checked by `kernelspecs.environment`
    if not isinstance(kwargs, Mapping | None):
        raise ConfigError(f"environment_kwargs is a dict such as {{'place': 'docker'}}, not {kwargs!r}.")
    options = dict(kwargs or {})
    place = options.pop("place", "local")
    if not isinstance(place, str) or place == AGENT:
        raise ConfigError(
            f"environment_kwargs['place'] is where the agent's kernel runs, 'local' or 'docker', not {place!r}."
        )
    return place, options or None
