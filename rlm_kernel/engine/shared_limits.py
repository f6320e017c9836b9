"""The limits that many runs share: a budget, the rate of calls of each model, and the sub-calls in flight.

A run has a `Ledger` of its own for the limits of the `RLM`. A batch adds a `SharedLimits`: each call of each of its
runs is admitted by both. On a cluster another object with the same methods asks the one that counts for all.
"""

from __future__ import annotations

import asyncio
import math
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from rlm_kernel.clients import estimates
from rlm_kernel.clients.base import BaseLM
from rlm_kernel.clients.estimates import Bound
from rlm_kernel.clients.rate_limits import MAX_PAUSE_SECONDS, Allowed, RateSeen
from rlm_kernel.engine.budget import NO_LIMITS, Ledger, Limits, Receipt
from rlm_kernel.types import ModelUsageSummary, Usage, UsageMeter, UsageSummary

LONG_WAIT_SECONDS = 60.0
"""A call that waits so long is reported."""

_MINUTE = 60.0


class Asked(Protocol):
    """What the limits need to know of a model."""

    @property
    def model(self) -> str: ...  # noqa: D102 (as of `BaseLM`)
    @property
    def rate_seen(self) -> RateSeen | None: ...  # noqa: D102


class Admission(Protocol):
    """Admits the calls of many runs."""

    @property
    def counts_dollars(self) -> bool:
        """Whether the runs share a budget."""
        ...

    def call(self, lm: BaseLM, limit: Bound, receipt: Receipt) -> AbstractAsyncContextManager[None]:
        """A context around one call of a model, which waits until the call is admitted.

        Raises:
            LimitError: nothing is left.
        """
        ...

    def count(self, model: str, usage: Usage) -> None:
        """Count a call that is on record."""
        ...


@dataclass(frozen=True, slots=True)
class RatePerMinute:
    """What a model is asked in a minute, at most. Infinity: no limit.

    Attributes:
        requests: calls.
        tokens: of prompts and replies. A call is counted by its upper bound until its usage is known.
    """

    requests: float = math.inf
    tokens: float = math.inf


class Bucket:
    """A token bucket: it holds what may be used in one minute, and refills evenly.

    Args:
        per_minute: its size.
    """

    def __init__(self, per_minute: float) -> None:
        self._given = self._size = self._level = per_minute
        self._filled = time.monotonic()

    def delay(self, amount: float) -> float:
        """Seconds until so much may be used. An amount larger than the bucket waits until it is full."""
        self._refill()
        missing = min(amount, self._size) - self._level
        return 0.0 if missing <= 0 or self._size == math.inf else missing * _MINUTE / self._size

    def take(self, amount: float) -> None:
        """Use an amount. A negative one gives back."""
        self._refill()
        self._level = max(self._lowest, min(self._size, self._level - amount))

    def learn(self, seen: Allowed) -> None:
        """Follow what the provider reports, never above what the user allows."""
        self._refill()
        if seen.per_minute < math.inf:
            size = min(self._given, seen.per_minute)
            self._level = size if self._size == math.inf else min(self._level, size)
            self._size = size
        self._level = max(self._lowest, min(self._level, seen.remaining))

    @property
    def size(self) -> float:
        """What may be used in one minute."""
        return self._size

    @property
    def _lowest(self) -> float:
        """With less, it would take longer than `MAX_PAUSE_SECONDS` to refill. Only a limit of the user may do that."""
        return -math.inf if self._size == self._given else self._size * (1 - MAX_PAUSE_SECONDS / _MINUTE)

    def _refill(self) -> None:
        now = time.monotonic()
        if self._size < math.inf:
            self._level = min(self._size, self._level + (now - self._filled) * self._size / _MINUTE)
        self._filled = now


class RateLimit:
    """Admits the calls of one model, in the order of arrival. Used in one event loop.

    Args:
        rate: the user's limits.
        model: its name, for the warning of a long wait.
    """

    def __init__(self, rate: RatePerMinute, model: str = "the model") -> None:
        self._model, self._has_warned = model, False
        self._requests, self._tokens = Bucket(rate.requests), Bucket(rate.tokens)
        self._paused_until = 0.0
        self._seen: RateSeen | None = None
        self._order = asyncio.Lock()

    async def admit(self, tokens: float, seen: RateSeen | None = None) -> None:
        """Wait until a call with so many tokens at most may be sent.

        Args:
            tokens: of the call, at most.
            seen: what the latest response said.
        """
        self.learn(seen)
        async with self._order:
            while (delay := self._delay(tokens))[0] > 0:
                self._warn(*delay)
                await asyncio.sleep(delay[0])
            self._requests.take(1)
            self._tokens.take(tokens)

    def settle(self, unused_tokens: float) -> None:
        """Give back what a call did not use."""
        self._tokens.take(-unused_tokens)

    def learn(self, seen: RateSeen | None) -> None:
        """Follow the headers of a response; each is followed once."""
        if seen is None or seen is self._seen:
            return
        self._seen = seen
        self._requests.learn(seen.requests)
        self._tokens.learn(seen.tokens)
        self._paused_until = max(self._paused_until, seen.paused_until)

    def _delay(self, tokens: float) -> tuple[float, str]:
        """Seconds until a call may be sent, and what it waits for."""
        return max(
            (self._paused_until - time.time(), "the provider's headers ask for a pause"),
            (self._requests.delay(1), f"the limit is {self._requests.size:g} requests a minute"),
            (self._tokens.delay(tokens), f"the limit is {self._tokens.size:g} tokens a minute"),
        )

    def _warn(self, delay: float, reason: str) -> None:
        """Say once why nothing happens."""
        if delay >= LONG_WAIT_SECONDS and not self._has_warned:
            self._has_warned = True
            message = f"Calls of {self._model} wait, the next one for {delay:.0f} s: {reason}. This is reported once."
            with suppress(RuntimeWarning):  # where warnings are errors
                warnings.warn(message, RuntimeWarning, stacklevel=2)


class SharedLimits:
    """The limits that the runs of one process share. Used in the engine's event loop.

    Args:
        limits: `max_budget` and `max_tokens` of all runs together.
        rate: of each model.

    Attributes:
        usage: of all runs.
        is_limited: whether the user gave any limit.
    """

    def __init__(self, limits: Limits = NO_LIMITS, rate: RatePerMinute = RatePerMinute()) -> None:
        self.usage = UsageMeter()
        self.is_limited = limits != NO_LIMITS or rate != RatePerMinute()
        self._ledger = Ledger(limits, of_batch=True)
        self._rate = rate
        self._rates: dict[str, RateLimit] = {}

    @property
    def broken(self) -> Exception | None:
        """The error of the limit that was reached, or None."""
        return self._ledger.broken

    @property
    def counts_dollars(self) -> bool:
        """Whether the runs share a budget."""
        return self._ledger.counts_dollars

    @asynccontextmanager
    async def call(self, lm: Asked, limit: Bound, receipt: Receipt) -> AsyncIterator[None]:
        """A context around one call of a model, which waits until the call is admitted.

        Raises:
            BudgetExceededError, TokenLimitExceededError: nothing is left.
        """
        requests, receipt.requests = receipt.requests, 0  # while it waits, nothing has been sent
        async with self._ledger.call(lm.model, limit, self.usage, receipt):
            rate = self._rate_of(lm.model)
            await rate.admit(limit.tokens, lm.rate_seen)
            receipt.requests = requests
            try:
                yield
            finally:
                rate.learn(lm.rate_seen)
                rate.settle(limit.tokens - _used(limit, receipt))

    def _rate_of(self, model: str) -> RateLimit:
        if model not in self._rates:
            self._rates[model] = RateLimit(self._rate, model)
        return self._rates[model]

    def count(self, model: str, usage: Usage) -> None:
        """Count a call that is on record."""
        self._ledger.count(model, usage, self.usage)


class TaskLimits:
    """The limits of a batch for one of its tasks. A call of an earlier run of the task is counted once.

    Args:
        shared: the limits of the batch. They have counted the earlier runs.
        earlier: what these used.
    """

    def __init__(self, shared: Admission, earlier: UsageSummary) -> None:
        self._shared = shared
        models = earlier.model_usage_summaries
        self._earlier = {name: (one.total_calls, estimates.recorded(one.usage)) for name, one in models.items()}

    @property
    def counts_dollars(self) -> bool:
        """Whether the batch has a budget."""
        return self._shared.counts_dollars

    def call(self, lm: BaseLM, limit: Bound, receipt: Receipt) -> AbstractAsyncContextManager[None]:
        """A context around one call of a model, which waits until the call is admitted.

        Raises:
            LimitError: nothing is left.
        """
        return self._shared.call(lm, limit, receipt)

    def count(self, model: str, usage: Usage) -> None:
        """Count a call that is on record, unless it is one of the earlier runs."""
        calls, total = self._earlier.get(model, (0, usage))
        if calls > 0:
            self._earlier[model] = calls - 1, total.minus(estimates.recorded(usage))
        else:
            self._shared.count(model, usage)

    def unrecorded(self) -> UsageSummary:
        """The calls of the earlier runs that were not on record when the task was run again."""
        left = self._earlier.items()
        return UsageSummary({model: ModelUsageSummary.of(calls, total) for model, (calls, total) in left if calls > 0})


def _used(limit: Bound, receipt: Receipt) -> float:
    """Tokens of a call; its bound if its usage is unknown."""
    if receipt.reply is None:
        return float(limit.tokens)
    usage = receipt.reply.usage
    return float(usage.input_tokens + usage.output_tokens) or float(limit.tokens)
