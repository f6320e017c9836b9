"""Read a model's context window from a server's list of models (`GET /v1/models`), where it stands under many names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = (
    "max_model_len",  # vLLM
    "n_ctx",  # llama.cpp, under "meta"
    "context_length",  # OpenRouter, Together
    "context_window",  # Groq
    "max_context_length",  # Mistral, LM Studio
    "max_input_tokens",  # Anthropic
)


def in_listing(listing: Any, model: str) -> int | None:
    """The tokens of prompt and reply together that the list gives for a model, or None.

    Args:
        listing: the decoded answer; its shape is not trusted.
        model: the name of the model. A list of one model is about that one, whatever it is called there.
    """
    entries = listing.get("data") if isinstance(listing, Mapping) else None
    found = [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []
    named = [entry for entry in found if entry.get("id") == model]
    return next(map(_window, named or (found if len(found) == 1 else [])), None)


def _window(entry: Mapping[str, Any]) -> int | None:
    meta = entry.get("meta")
    fields = {**(meta if isinstance(meta, Mapping) else {}), **entry}
    values = (fields.get(name) for name in NAMES)
    return next((value for value in values if isinstance(value, int) and value > 0), None)
