"""Python names for what servers name as they like: ``x;y``, ``__import__``, ``class``."""

from __future__ import annotations

import keyword
import unicodedata
from collections.abc import Container

MAX_NAME_CHARACTERS = 64


def identifier(given: str, taken: Container[str], prefix: str) -> str:
    """A Python name that is like the given one and none of the taken ones. It does not begin with an underscore.

    Args:
        given: any text.
        taken: names that it cannot be.
        prefix: what is put before a name that is taken or none; a word of the language gets an underscore at its end.
    """
    text = unicodedata.normalize("NFKC", given[: 4 * MAX_NAME_CHARACTERS])
    letters = "".join(sign if f"a{sign}".isidentifier() else "_" for sign in text).strip("_")
    name = letters[:MAX_NAME_CHARACTERS].rstrip("_")
    name = f"{name}_" if _is_word(name) else name  # as PEP 8 has it
    if not name.isidentifier() or name in taken:
        name = f"{prefix}_{name}".rstrip("_")
    number, plain = 1, name
    while name in taken:
        number += 1
        name = f"{plain}_{number}"
    return name


def _is_word(name: str) -> bool:
    return keyword.iskeyword(name) or keyword.issoftkeyword(name)
