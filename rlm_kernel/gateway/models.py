"""The model of `rlm.complete`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Models:
    """The model of `rlm.complete`, and where its code runs.

    Attributes:
        backend: of `RLM`; None: there is no model.
    """

    backend: Any = None
    backend_kwargs: Mapping[str, Any] | None = None
    environment: str = "docker"
    prompts: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
