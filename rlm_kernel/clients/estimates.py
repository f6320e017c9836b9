"""The upper bound of a call's usage before it is sent, and the usage that is counted after it.

A token stands for at least one byte of text. So the bytes of a prompt in UTF-8 are an upper bound of its tokens, three
or four times the real number for English; the chat template adds a few tokens around each message. A reply is bounded
by its own limit. Nothing here calls a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlm_kernel.schema.answer_schema import text_of
from rlm_kernel.types import Message, Reply, Usage

MESSAGE_TOKENS = 32
"""Added for each message: its role, and the marks at its ends."""

REQUEST_TOKENS = 512
"""Added for a request: text of a template or a provider, such as the text around a schema."""

IMAGE_TOKENS = 50_000
"""Of an image: the highest known charge of a provider (eight tiles at OpenAI's highest rate)."""

REPLY_TOKENS = 131_072
"""Of a reply without any limit, from a model whose window is unknown."""

MAX_TOKENS_OF_CALL = 10**9
MAX_DOLLARS_OF_CALL = 10**6
"""Larger reported numbers are not taken for amounts."""

_MAX_SIZES = 10_000
_sizes: dict[tuple[int, int], int] = {}

Price = Callable[[int, int], float | None]
"""The highest cost of tokens of prompt and reply, in US dollars; None if it is unknown before the call."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The upper bound of a call's usage.

    Attributes:
        input_tokens: of the prompt.
        output_tokens: of the reply, its thinking included.
        price: the cost of tokens.
    """

    input_tokens: int
    output_tokens: int
    price: Price = lambda *_: None

    @property
    def tokens(self) -> int:
        """Of prompt and reply."""
        return self.input_tokens + self.output_tokens


def bound(
    messages: Sequence[Message],
    schema: Mapping[str, Any] | None = None,
    *,
    reply_tokens: int | None,
    window: int | None = None,
    price: Price = lambda *_: None,
) -> Bound:
    """The bound of a call.

    Args:
        messages: the conversation.
        schema: the JSON Schema of the reply, or None. It counts twice: in the provider's mode, and in the prompt.
        reply_tokens: the longest reply; None: the window, or `REPLY_TOKENS` if that is unknown.
        window: tokens of the model's context window, or None.
        price: the cost of tokens.
    """
    read = REQUEST_TOKENS + sum(map(_of_message, messages))
    if schema is not None:
        read += 2 * _size(text_of(schema))
    return Bound(read, reply_tokens or window or REPLY_TOKENS, price)


def believed(reply: Reply, limit: Bound) -> Usage:
    """The usage of a reply: the reported numbers, and estimates for numbers that are missing or impossible.

    Impossible are no tokens for a prompt or for a text, negative amounts, fractions of tokens, and NaN. More than
    `limit` is possible: it is the user's bill.
    """
    reported = reply.usage
    read, wrote = _count(reported.input_tokens), _count(reported.output_tokens)
    cached, cost, estimated_tokens = _count(reported.cached_tokens) or 0, _dollars(reported.cost), 0
    if not read:
        read = limit.input_tokens
        estimated_tokens += read
    if wrote is None or (wrote == 0 and (reply.text or reply.finish_reason == "length")):
        wrote = _written(reply, limit)
        estimated_tokens += wrote
    computed = limit.price(read, wrote) if estimated_tokens or cost is None else None
    if computed is None or (cost is not None and computed <= cost):
        return Usage(read, wrote, cached, cost, estimated_tokens)
    return Usage(read, wrote, cached, computed, estimated_tokens, computed)


def lost(limit: Bound, requests: int = 1) -> Usage:
    """The usage that is counted for a call whose end was not seen: its bound, once per request."""
    read, wrote = requests * limit.input_tokens, requests * limit.output_tokens
    cost = limit.price(read, wrote)
    return Usage(read, wrote, 0, cost, read + wrote, cost or 0.0)


def recorded(usage: Usage) -> Usage:
    """The usage of a recorded call. A stranger may have written it, so invalid amounts count as 0."""
    read, wrote, cached = (_count(n) or 0 for n in (usage.input_tokens, usage.output_tokens, usage.cached_tokens))
    guessed, dollars = _count(usage.estimated_tokens) or 0, _dollars(usage.estimated_cost) or 0.0
    return Usage(read, wrote, cached, _dollars(usage.cost), guessed, dollars)


def _of_message(message: Message) -> int:
    return MESSAGE_TOKENS + _size(message["content"]) + IMAGE_TOKENS * len(message.get("images", ()))


def _size(text: str) -> int:
    """The bytes of a text in UTF-8. Each text is encoded once: Python keeps its hash, and `_sizes` the result."""
    if text.isascii():
        return len(text)
    key = hash(text), len(text)
    if (size := _sizes.get(key)) is None:
        if len(_sizes) >= _MAX_SIZES:
            _sizes.clear()
        _sizes[key] = size = len(text.encode("utf-8", "surrogatepass"))
    return size


def _written(reply: Reply, limit: Bound) -> int:
    """The tokens of a reply without reported usage. One that was cut used its whole limit, thinking included."""
    return limit.output_tokens if reply.finish_reason == "length" else min(_size(reply.text), limit.output_tokens)


def _count(value: object) -> int | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS_OF_CALL
    return value if isinstance(value, int) and fits else None


def _dollars(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= MAX_DOLLARS_OF_CALL else None  # False for NaN
