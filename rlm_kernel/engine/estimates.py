"""What a call of a model can use at most, known before it is sent, and what is believed of what is said after it.

A token is at least one byte of the text it stands for. So the bytes of a prompt in UTF-8 are an upper bound of its
tokens, three or four times what English takes; around each message stand a few tokens of the chat's template. A reply
is bounded by its own limit. Nothing here asks anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlm_kernel.schema.answer_schema import text_of
from rlm_kernel.types import Message, Reply, Usage

MESSAGE_TOKENS = 32
"""Around each message: its role, and the marks at its ends."""

REQUEST_TOKENS = 512
"""Of a request: words that a template or a provider adds by itself, such as those around a schema."""

IMAGE_TOKENS = 50_000
"""Of a picture: the most that a provider is known to charge (eight tiles of OpenAI's dearest counting)."""

REPLY_TOKENS = 131_072
"""Of a reply without any limit, from a model whose window is unknown."""

MAX_TOKENS_OF_CALL = 10**9
MAX_DOLLARS_OF_CALL = 10**6
"""A provider that reports more than that reports no amount."""

Price = Callable[[int, int], float | None]
"""The most that tokens of prompt and reply cost, in US dollars; None when it is unknown before the call."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a call can use at most.

    Attributes:
        input_tokens: of the prompt.
        output_tokens: of the reply, its thinking included.
        price: what tokens cost.
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
        schema: the JSON Schema of the reply, or None. It is read as the provider's mode has it, and in words.
        reply_tokens: the longest reply; None: the window, and `REPLY_TOKENS` where that is unknown.
        window: tokens of the model's context window, or None.
        price: what tokens cost.
    """
    read = REQUEST_TOKENS + sum(map(_of_message, messages))
    if schema is not None:
        read += 2 * _size(text_of(schema))
    return Bound(read, reply_tokens or window or REPLY_TOKENS, price)


def believed(reply: Reply, limit: Bound) -> Usage:
    """What a reply is taken to have used: what the provider says, and an estimate of what it does not say or cannot be.

    No tokens for a prompt, or none for a text, cannot be; nor can negative amounts, fractions of tokens and numbers
    that are none. More than `limit` can be: it is the user's bill.
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
    """The usage that is counted for a call whose end was not seen: its bound, for each time it was sent."""
    read, wrote = requests * limit.input_tokens, requests * limit.output_tokens
    cost = limit.price(read, wrote)
    return Usage(read, wrote, 0, cost, read + wrote, cost or 0.0)


def recorded(usage: Usage) -> Usage:
    """The usage of a call on record, which a stranger may have written: what is no amount counts as nothing."""
    read, wrote, cached = (_count(n) or 0 for n in (usage.input_tokens, usage.output_tokens, usage.cached_tokens))
    guessed, dollars = _count(usage.estimated_tokens) or 0, _dollars(usage.estimated_cost) or 0.0
    return Usage(read, wrote, cached, _dollars(usage.cost), guessed, dollars)


def _of_message(message: Message) -> int:
    return MESSAGE_TOKENS + _size(message["content"]) + IMAGE_TOKENS * len(message.get("images", ()))


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _written(reply: Reply, limit: Bound) -> int:
    """The tokens of a reply without reported usage. One that was cut used its whole limit, thinking included."""
    return limit.output_tokens if reply.finish_reason == "length" else min(_size(reply.text), limit.output_tokens)


def _count(value: object) -> int | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS_OF_CALL
    return value if isinstance(value, int) and fits else None


def _dollars(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= MAX_DOLLARS_OF_CALL else None  # no NaN is
