"""A reply under construction, whole or piece by piece, read without trusting its shape.

The SDKs do not validate responses: any field can be missing or of another type when the server is only nearly
compatible. So every field is read with a default, and a required field that is absent is None.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.clients.pricing import Tokens

MAX_DOLLARS = 1e12
"""More is no price, and a number beyond that of a float cannot be one."""


@dataclass(slots=True)
class Draft:
    """What has been read so far. A subclass reads the responses of one API.

    Attributes:
        model: the model that answers, as far as the provider says.
        pieces: the text so far; empty until a text, even an empty one, has come.
        finish_reason: why it ended, or None.
        tokens: what was used, or None when the provider did not say.
        cost: US dollars, as the provider reports them, or None.
        begun: whether there was a reply at all.
        complaint: what the provider said instead of one.
    """

    model: str
    pieces: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    tokens: Tokens | None = None
    cost: float | None = None
    begun: bool = False
    complaint: str = "the reply has no choices"

    def add(self, response: Any) -> str:
        """Take in a response or a piece of a streamed one; its text comes back."""
        raise NotImplementedError


def count(record: Any, name: str) -> int | None:
    """A number of tokens; None when it is missing or none, such as the -1 of a server that does not know."""
    value = getattr(record, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def amount(record: Any, name: str) -> float | None:
    """US dollars; None when they are missing or none."""
    return dollars(getattr(record, name, None))


def dollars(value: Any) -> float | None:
    """US dollars; None when the value is none."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MAX_DOLLARS
    return float(value) if known else None
