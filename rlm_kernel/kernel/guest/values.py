"""Values of cells as the host sees them: answers, variables, and the beginnings of their values."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

MAX_ANSWER_BYTES = 20_000_000
MAX_NAME_CHARACTERS = 200
MAX_VALUE_DEPTH = 4
MAX_INTEGER_BITS = 4_000
MAX_PLAIN_DEPTH = 100
MAX_PLAIN_VALUES = 1_000_000
ATOMS = (bool, int, float, complex, type(None))
JSON_ATOMS = (str, bool, int, float, type(None))
BRACKETS = ((list, "[", "]"), (tuple, "(", ")"), (dict, "{", "}"), (set, "{", "}"), (frozenset, "frozenset({", "})"))
TYPE_NAME = type.__dict__["__name__"].__get__  # not `kind.__name__`, which a metaclass may override


def type_of(value: object) -> str:
    """The name of the type of a value."""
    name: str = TYPE_NAME(type(value))
    return name[:MAX_NAME_CHARACTERS]


def shown(value: Any, room: int, depth: int = MAX_VALUE_DEPTH) -> str:
    """The first `room` characters of the `repr` of a value, without a call of the user's code.

    Built-in types are compared by identity, because a metaclass can have an `__eq__`. Other types are named.
    """
    kind = type(value)
    if kind is str or kind is bytes:
        return repr(value[:room])[:room]
    if kind is int and value.bit_length() > MAX_INTEGER_BITS:  # its digits would take long, or are refused by Python
        return type_of(value)
    if any(kind is atom for atom in ATOMS):
        return repr(value)[:room]
    for container, opening, closing in BRACKETS:
        if kind is container:
            return items_of(value, opening, closing, room, depth)
    return type_of(value)[:room]


def is_plain(value: Any) -> bool:
    """Whether a value is of JSON's types throughout, compared by identity, and neither deep nor long."""
    level, left = [value], MAX_PLAIN_VALUES
    for _ in range(MAX_PLAIN_DEPTH):
        left -= len(level)
        if left < 0:
            return False
        below: list[Any] = []
        for one in level:
            kind = type(one)
            if kind is dict:
                below += one
                below += one.values()
            elif kind is list or kind is tuple:
                below += one
            elif (kind is int and one.bit_length() > MAX_INTEGER_BITS) or not any(kind is atom for atom in JSON_ATOMS):
                return False
        if not below:
            return True
        level = below
    return False


def items_of(value: Any, opening: str, closing: str, room: int, depth: int) -> str:
    """The same for a container."""
    if not depth or not value:
        return (f"{opening}...{closing}" if value else repr(value))[:room]
    text = opening
    for entry in value.items() if type(value) is dict else zip(value):
        text += "" if text == opening else ", "
        text += ": ".join(shown(part, room, depth - 1) for part in entry)
        if len(text) > room:
            return text[:room]
    return (text + ("," if type(value) is tuple and len(value) == 1 else "") + closing)[:room]


def too_large(name: str, *answer: str | None) -> bool:
    """Whether an answer has too many bytes, as text or as JSON; if so, the cell's stderr says it."""
    size = max(len(text.encode("utf-8", "surrogatepass")) for text in answer if text is not None)
    if size > MAX_ANSWER_BYTES:
        limit = f"{name} was not taken: it has {size:,} bytes; an answer may have at most {MAX_ANSWER_BYTES:,}."
        print(f"{limit} Give a part of it, or what follows from it.", file=sys.stderr)
    return size > MAX_ANSWER_BYTES


def attempt(made: Callable[[], Any]) -> tuple[Any, str]:
    """Call code of a user's value. Returns its result and "", or None and the error: the report must not fail."""
    try:
        return made(), ""
    except (Exception, SystemExit) as error:
        return None, "".join(traceback.format_exception_only(type(error), error)).strip()


def both(value: object) -> tuple[str, str | None]:
    """An answer as text, as Python prints it, and as JSON if it is not a text and can be encoded."""
    if issubclass(type(value), str):
        return str.__str__(value), None
    text, error = attempt(lambda: str(value))
    if error:
        text = f"<{TYPE_NAME(type(value))} that cannot be printed: {error}>"
    return text, None if value is None else attempt(lambda: json.dumps(value, default=plain, allow_nan=False))[0]


def plain(value: Any) -> Any:
    """A JSON value for a pydantic object, a value of numpy or pandas, or a set."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return value.tolist() if hasattr(value, "tolist") else sorted(value)
