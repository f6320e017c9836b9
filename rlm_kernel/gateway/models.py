"""The model of `rlm.complete`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.api import RLM


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

    def check(self) -> None:
        """Make what `rlm.complete` makes for each call, so that a mistake ends the start.

        Raises:
            ConfigError: a key, an argument, a package or the environment is missing or wrong.
        """
        RLM(
            backend=self.backend,
            backend_kwargs=self.backend_kwargs,
            environment=self.environment,
            prompts=self.prompts,
            **self.options,
        )
