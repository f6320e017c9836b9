"""Keep secrets out of what is written: by their values wherever they stand, and by the names they go under.

A key that a user passes, or that stands in the host's environment, is known; whatever text holds it loses it. A field
that is called like a secret loses its value, whoever wrote it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "[redacted]"
SHORTEST = 8
"""Characters. What is shorter would be found in innocent words."""

_SECRET_NAME = re.compile(
    r"(api|access|private|secret|account|subscription|virtual|encryption|signing)[_-]?key|^key$"
    r"|secret|passw(or)?d|passphrase|credential|authorization|cookie|bearer|(^|[_-])(auth|token|pat)$|_key$",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Whether a field or variable of this name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def secrets_of(environ: Mapping[str, str]) -> frozenset[str]:
    """The values of environment variables that are called like secrets."""
    return frozenset(value for name, value in environ.items() if is_secret_name(name) and len(value) >= SHORTEST)


def without_secrets(value: Any) -> Any:
    """Plain data with the values of fields that are called like secrets hidden."""
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if is_secret_name(str(key)) and held not in (None, "") else without_secrets(held)
            for key, held in value.items()
        }
    return [without_secrets(item) for item in value] if isinstance(value, list | tuple) else value


def named_secrets(value: Any) -> set[str]:
    """The texts in plain data that stand in fields called like secrets: they are secrets elsewhere, too."""
    if isinstance(value, Mapping):
        held = {v for k, v in value.items() if is_secret_name(str(k)) and isinstance(v, str) and len(v) >= SHORTEST}
        return held.union(*map(named_secrets, value.values()))
    return set().union(*map(named_secrets, value)) if isinstance(value, list | tuple) else set()


class Redactor:
    """Replaces known secrets in text.

    Args:
        secrets: their values.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= SHORTEST}, key=len, reverse=True)
        # As they stand in a text, and as JSON writes them.
        forms = dict.fromkeys(form for secret in known for form in (secret, json.dumps(secret)[1:-1]))
        self._pattern = re.compile("|".join(map(re.escape, forms))) if forms else None

    def __call__(self, text: str) -> str:
        """The text without them."""
        return text if self._pattern is None else self._pattern.sub(HIDDEN, text)
