"""Traits of several provisioners: environment variables, an amount of memory, Python packages."""

from __future__ import annotations

from typing import Any

from traitlets import Dict, Float, Integer, List, TraitError, Unicode, Union

from rlm_kernel.text import size_in_bytes


class Variables(Dict):
    """Environment variables by name."""

    def __init__(self, **options: Any) -> None:
        super().__init__(key_trait=Unicode(), value_trait=Unicode(), **options)

    def validate(self, obj: Any, value: Any) -> Any:
        """Refuse what the system refuses, before the start of a kernel."""
        super().validate(obj, value)
        for name, text in value.items():
            if not name or "=" in name or "\0" in name + text:
                raise TraitError(
                    f"{name!r} cannot be set: a name is not empty and has no '='; nothing has a NUL in it."
                )
        return value


class Memory(Union):
    """An amount of memory: a number of bytes, or a text such as ``"2g"``.

    Args:
        least: the smallest amount that is allowed, as a text.
    """

    def __init__(self, least: str, **options: Any) -> None:
        super().__init__([Unicode(), Integer()], **options)
        self._least = least

    def validate(self, obj: Any, value: Any) -> Any:
        """Refuse what is not an amount of memory, or too small."""
        super().validate(obj, value)
        try:
            size = size_in_bytes(value)
        except ValueError as error:
            raise TraitError(str(error)) from error
        if size < size_in_bytes(self._least):
            raise TraitError(f"{value!r} is too little for a kernel: give it {self._least} at least.")
        return value


class Gibibytes(Union):
    """An amount of memory: a number of GiB, as the clouds count, or a text such as ``"512m"``."""

    def __init__(self, **options: Any) -> None:
        super().__init__([Unicode(), Float()], **options)

    def validate(self, obj: Any, value: Any) -> Any:
        """Refuse what is not an amount of memory, or nothing."""
        super().validate(obj, value)
        try:
            amount = self.of(value)
        except ValueError as error:
            raise TraitError(str(error)) from error
        if not amount > 0:
            raise TraitError(f"{self.name} is a number of GiB greater than 0, or a text such as '2g', not {value!r}.")
        return value

    @staticmethod
    def of(value: str | float) -> float:
        """A value of this trait in GiB."""
        return size_in_bytes(value) / 2**30 if isinstance(value, str) else float(value)


class Packages(List[str]):
    """Packages for pip: lines of a requirements file."""

    def __init__(self, **options: Any) -> None:
        super().__init__(Unicode(), **options)

    def validate(self, obj: Any, value: Any) -> Any:
        """Refuse an entry that is empty, or more than one line."""
        super().validate(obj, value)
        if any("\n" in line or not line.strip() for line in value):
            raise TraitError("a package is one line of a requirements file, e.g. 'numpy>=2'.")
        return value


class Secret(Unicode[Any, Any]):
    """A text that no message quotes."""

    def validate(self, obj: Any, value: Any) -> Any:  # noqa: ARG002 (the signature is that of traitlets)
        """Refuse what is not a text, and what cannot be in an HTTP header."""
        if value is not None and not (isinstance(value, str) and value.isascii() and value.isprintable()):
            raise TraitError(f"{self.name} is a text of printable ASCII characters.")
        return value
