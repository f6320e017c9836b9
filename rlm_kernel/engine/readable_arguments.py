"""The arguments of an `RLM` as attributes. Those that a run no longer reads cannot be assigned."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
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
        kept = {
            name: MappingProxyType(value) if isinstance(value, dict) else value
            for name, value in arguments.items()
            if name not in {"self", *assignable}
        }
        object.__setattr__(self, "_arguments", kept)

    def __setattr__(self, name: str, value: Any) -> None:
        if _OTHER_NAMES.get(name, name) in self.__dict__.get("_arguments", ()):
            kind = type(self).__name__
            raise AttributeError(
                f"{name} is read when the {kind} is made, so an assignment has no effect: make a new {kind} with it."
            )
        if not self._may_have(name):
            known = [*self.__dict__["_arguments"], "logger", "verbose"]
            close = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}, so it has no effect.{hint}"
            )
        super().__setattr__(name, value)

    def _may_have(self, name: str) -> bool:
        """Whether an attribute may be assigned. Those of a user's subclass are its own matter."""
        kind = type(self)
        if name.startswith("_") or "_arguments" not in self.__dict__ or not kind.__module__.startswith("rlm_kernel."):
            return True
        declared = (vars(base).get("__annotations__", ()) for base in kind.__mro__)
        return name in self.__dict__ or hasattr(kind, name) or any(name in names for names in declared)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__dict__.get("_arguments", ()), *_OTHER_NAMES})

    if not TYPE_CHECKING:  # a checker would accept any attribute

        def __getattr__(self, name: str) -> Any:
            arguments = self.__dict__.get("_arguments", {})
            if (argument := _OTHER_NAMES.get(name, name)) in arguments:
                return arguments[argument]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
