"""Ask a model, on the ledger: the one way in which a run calls a model.

Every call of a run goes through `ask`: those of the root model with its summaries, repairs and last words, sub-calls,
and those of children, of a replay that asks models, and of `%%rlm`. So none can be made that is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rlm_kernel.clients.base import BaseLM, OnText
from rlm_kernel.engine.budget import Ledger, Receipt
from rlm_kernel.engine.estimates import Bound, bound
from rlm_kernel.errors import ConfigError, LMError
from rlm_kernel.schema.answer_schema import Schema
from rlm_kernel.types import Message, Reply

if TYPE_CHECKING:
    from rlm_kernel.types import UsageMeter


async def ask(
    lm: BaseLM,
    messages: Sequence[Message],
    schema: Schema | None,
    *,
    max_tokens: int,
    ledger: Ledger,
    meter: UsageMeter,
    receipt: Receipt,
    on_text: OnText | None = None,
    on_turn: Callable[[], None] = lambda: None,
) -> Reply:
    """One call of a model, when the limits admit it. The usage on the reply is what was counted.

    Args:
        lm: the model.
        messages: the conversation.
        schema: what the reply has to fit, or None.
        max_tokens: the longest reply.
        ledger: keeps the limits of the tree.
        meter: counts the calls of the run.
        receipt: says afterwards what was counted, also when this raises.
        on_text: called with each piece of the reply.
        on_turn: called when the call is admitted.

    Raises:
        LMError: the provider failed.
        LimitError: the limits admit no further call.
    """
    async with ledger.call(lm.model, bound_of(lm, messages, schema, max_tokens), meter, receipt):
        on_turn()
        try:
            document = None if schema is None else schema.document
            receipt.reply = await lm.complete(messages, max_tokens=max_tokens, on_text=on_text, schema=document)
        except LMError as error:
            receipt.requests = error.requests
            if error.usage is not None:
                receipt.reply = Reply("", lm.model, error.usage, None)
            raise
        except ConfigError:  # the SDK was not opened
            receipt.requests = 0
            raise
    assert receipt.usage is not None, "a reply is counted"
    return replace(receipt.reply, usage=receipt.usage)


def bound_of(lm: BaseLM, messages: Sequence[Message], schema: Schema | None, max_tokens: int) -> Bound:
    """What a call of a model can use at most."""
    document = None if schema is None else schema.document
    limit = lm.reply_limit(max_tokens)
    return bound(messages, document, reply_tokens=limit, window=lm.context_window, price=lm.price)
