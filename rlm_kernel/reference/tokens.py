"""Tokens of messages, and the context windows of models, as the reference's `rlm.utils.token_utils` estimates them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rlm_kernel.clients.pricing import Pricing

DEFAULT_CONTEXT_LIMIT = 128_000
"""Tokens, for a model that the price table does not know."""

CHARS_PER_TOKEN_ESTIMATE = 4


def get_context_limit(model_name: str) -> int:
    """The context window of a model in tokens, from the price table; a name may begin with ``@provider/``."""
    name = (model_name or "").rpartition("/")[2]
    return (Pricing(provider={}).window([name]) if name else None) or DEFAULT_CONTEXT_LIMIT


def count_tokens(messages: Iterable[Mapping[str, Any]], model_name: str = "") -> int:  # noqa: ARG001 (the reference's)
    """The tokens of a conversation, estimated: four characters each."""
    characters = sum(len(str(message.get("content") or "")) for message in messages)
    return -(-characters // CHARS_PER_TOKEN_ESTIMATE)
