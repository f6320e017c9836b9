"""What `rlm acp` was started with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_SESSIONS = 16
"""Conversations with a live kernel. That of the one that was idle for longest ends, and comes back from its record when
it is used."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What `rlm acp` was started with.

    Attributes:
        arguments: the arguments of an `AgentRLM` for a model; None: the first one.
        models: names that a client may choose from; the first is the default.
        backend: the provider.
        key_variable: the environment variable of its key; empty: it needs none.
        folder: where the conversations are kept.
        asks: whether the client is asked before something happens that may do harm.
        max_sessions: conversations with a live kernel.
    """

    arguments: Callable[[str | None], dict[str, Any]]
    models: tuple[str, ...]
    backend: str
    key_variable: str
    folder: Path
    asks: bool = True
    max_sessions: int = MAX_SESSIONS
