"""Call a model and count its usage: the only way in which a run calls a model.

Every call of a run goes through `ModelCalls.ask`: those of the root model (turns, summaries, repairs, final answers),
sub-calls, and those of children, of a live replay, and of `%%rlm`. So every call is counted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from rlm_kernel._async import without_stops
from rlm_kernel.clients.base import BaseLM, OnText
from rlm_kernel.clients.estimates import Bound, bound
from rlm_kernel.clients.requests_sent import requests_sent
from rlm_kernel.engine.budget import Ledger, Receipt
from rlm_kernel.engine.shared_limits import Admission
from rlm_kernel.errors import LimitError
from rlm_kernel.schema.answer_schema import Schema
from rlm_kernel.types import Message, Reply, Usage, UsageMeter

COST_COMES_WITH_THE_REPLY = ("openrouter", "litellm", "azure_openai")
"""Backends whose price is not known before a call: the reply reports the cost, or the model of a deployment."""

NO_TURN: AbstractAsyncContextManager[Any] = nullcontext()


@dataclass(frozen=True, slots=True)
class ModelCalls:
    """The model calls of one run.

    Attributes:
        ledger: the limits of the tree.
        usage: counts the calls of the run.
        shared: the limits that the run shares with others, or None.
    """

    ledger: Ledger
    usage: UsageMeter
    shared: Admission | None = None

    async def ask(
        self,
        lm: BaseLM,
        messages: Sequence[Message],
        schema: Schema | None = None,
        *,
        max_tokens: int | None,
        recorded: Reply | None = None,
        turn: AbstractAsyncContextManager[Any] = NO_TURN,
        on_turn: Callable[[], None] = lambda: None,
        on_text: OnText | None = None,
        on_failure: Callable[[Usage | None], None] = lambda _: None,
    ) -> Reply:
        """Call a model when the limits admit it. The usage of the reply is the counted usage.

        Args:
            lm: the model.
            messages: the conversation.
            schema: what the reply has to fit, or None.
            max_tokens: the longest reply; None: the provider's own limit.
            recorded: a reply of an earlier run: it is counted and returned without a call.
            turn: held during the call.
            on_turn: called when the call is admitted.
            on_text: called with each piece of the reply.
            on_failure: called if there is no reply, with the counted usage; None: nothing was counted.

        Raises:
            LMError: the provider failed.
            LimitError: the limits admit no further call.
        """
        if recorded is not None:
            self.count(lm.model, recorded.usage)
            return recorded
        document, receipt = None if schema is None else schema.document, Receipt()
        try:
            async with turn:
                longest, window = lm.reply_limit(max_tokens), lm.context_window
                limit = bound(messages, document, reply_tokens=longest, window=window, price=lm.price)
                async with self.ledger.call(lm.model, limit, self.usage, receipt), self._shared(lm, limit, receipt):
                    on_turn()
                    called = lm.complete(messages, max_tokens=max_tokens, on_text=on_text, schema=document)
                    with _counting(receipt):
                        receipt.reply = reply = await without_stops(called)
        except BaseException:
            on_failure(receipt.usage)
            raise
        assert receipt.usage is not None, "a reply is counted"
        return reply if receipt.usage == reply.usage else replace(reply, usage=receipt.usage)

    def can_charge(self, lm: BaseLM) -> bool:
        """Whether a budget, if there is one, can count what a model costs. Some report it with the first reply."""
        if not (self.ledger.counts_dollars or (self.shared is not None and self.shared.counts_dollars)):
            return True
        return lm.price_known() or (lm.backend in COST_COMES_WITH_THE_REPLY and not self.ledger.lacks_price(lm.model))

    def count(self, model: str, usage: Usage) -> None:
        """Count a call of an earlier run that this one resumes."""
        self.ledger.count(model, usage, self.usage)
        if self.shared is not None:
            self.shared.count(model, usage)

    @asynccontextmanager
    async def _shared(self, lm: BaseLM, limit: Bound, receipt: Receipt) -> AsyncIterator[None]:
        """The limits that other runs share. One that is reached ends this run."""
        if self.shared is None:
            yield
            return
        try:
            async with self.shared.call(lm, limit, receipt):
                yield
        except LimitError as error:
            self.ledger.broken = self.ledger.broken or error
            raise


@contextmanager
def _counting(receipt: Receipt) -> Iterator[None]:
    """Count the requests of the call that is made in this context."""
    token = requests_sent.set(receipt.sent)
    try:
        yield
    finally:
        requests_sent.reset(token)
