"""What a chat completion says, read without trusting its shape.

The SDK does not validate responses: any field can be missing or of another type when the server is only
nearly compatible. So every field is read with a default here, and what is indispensable and absent is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.records import Usage


@dataclass(slots=True)
class Draft:
    """A reply while it is read, whole or chunk by chunk.

    Attributes:
        model: the model that answers, as far as the provider says.
        pieces: the text so far; empty until a text, even an empty one, has come.
        finish_reason: why it ended, or None.
        usage: what it cost.
        begun: whether there was a choice at all.
        complaint: what the provider said instead of a choice.
    """

    model: str
    pieces: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    begun: bool = False
    complaint: str = "the reply has no choices"

    def add(self, response: Any) -> str:
        """Take in a chat completion or a chunk of one; its text comes back."""
        self.model = getattr(response, "model", None) or self.model
        self.complaint = _complaint(response) or self.complaint
        if (usage := getattr(response, "usage", None)) is not None:
            self.usage = _usage(usage)
        choices = getattr(response, "choices", None)
        return self._choose(choices[0]) if isinstance(choices, list) and choices else ""

    def _choose(self, choice: Any) -> str:
        self.begun = True
        self.finish_reason = getattr(choice, "finish_reason", None) or self.finish_reason
        text = _text(getattr(choice, "message", None) or getattr(choice, "delta", None))
        if text is not None:
            self.pieces.append(text)
        return text or ""


def _text(message: Any) -> str | None:
    """The words of a message or a delta; a refusal has a field of its own."""
    words = (getattr(message, name, None) for name in ("content", "refusal"))
    return next((text for text in words if isinstance(text, str)), None)


def _complaint(response: Any) -> str | None:
    """An error that came with status 200, or what came instead of JSON."""
    if isinstance(response, str):
        return "the reply is text, not JSON"
    error = getattr(response, "error", None)
    said = error.get("message") if isinstance(error, Mapping) else error
    return str(said) if said else None


def _usage(raw: Any) -> Usage:
    cost = getattr(raw, "cost", None)
    return Usage(
        _count(raw, "prompt_tokens"),
        _count(raw, "completion_tokens"),
        _count(getattr(raw, "prompt_tokens_details", None), "cached_tokens"),
        float(cost) if isinstance(cost, int | float) else None,
    )


def _count(record: Any, name: str) -> int:
    value = getattr(record, name, None)
    return value if isinstance(value, int) else 0
