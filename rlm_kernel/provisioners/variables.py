"""Environment variables as an option of a kernel."""

from __future__ import annotations

from typing import Any

from traitlets import Dict, TraitError, Unicode


class Variables(Dict):
    """A trait of a provisioner: environment variables by their names."""

    def __init__(self, **told: Any) -> None:
        super().__init__(key_trait=Unicode(), value_trait=Unicode(), **told)

    def validate(self, obj: Any, value: Any) -> Any:
        """What no process can be given is a TraitError here, and not an error of the start."""
        super().validate(obj, value)
        for name, text in value.items():
            if not name or "=" in name or "\0" in name + text:
                raise TraitError(
                    f"{name!r} cannot be set: a name is not empty and has no '='; nothing has a NUL in it."
                )
        return value
