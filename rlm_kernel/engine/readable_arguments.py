"""The arguments of an `RLM` as attributes. Those that a run no longer reads cannot be assigned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rlm_kernel.engine.recorded_config import Unpicklable

_OTHER_NAMES = {"environment_type": "environment", "system_prompt": "custom_system_prompt"}
"""Of the reference."""


class ReadableArguments(Unpicklable):
    """A class with the arguments of its `__init__` as attributes, such as `rlm.max_depth`."""

    _arguments: Mapping[str, Any]

    def _keep_arguments(self, arguments: Mapping[str, Any], *, assignable: Iterable[str]) -> None:
        """Make the arguments readable.

        Args:
            arguments: by name.
            assignable: attributes of the class itself that still have an effect.
        """
        kept = {name: value for name, value in arguments.items() if name not in {"self", *assignable}}
        object.__setattr__(self, "_arguments", kept)

    def __setattr__(self, name: str, value: Any) -> None:
        if _OTHER_NAMES.get(name, name) in self.__dict__.get("_arguments", ()):
            kind = type(self).__name__
            raise AttributeError(
                f"{name} is read when the {kind} is made, so an assignment has no effect: make a new {kind} with it."
            )
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__dict__.get("_arguments", ()), *_OTHER_NAMES})

    if not TYPE_CHECKING:  # a checker would accept any attribute

        def __getattr__(self, name: str) -> Any:
            arguments = self.__dict__.get("_arguments", {})
            if (argument := _OTHER_NAMES.get(name, name)) in arguments:
                return arguments[argument]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
