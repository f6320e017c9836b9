"""The limits of a run and all its children, in one ledger that holds under concurrency.

Before a call is sent, its upper bound is reserved: its prompt and the limit of its reply, in tokens, and in US dollars
if the price is known (`estimates`). If no price is known, an upper bound is derived from earlier calls of the model;
until the first of them has reported its cost, it runs alone. A call is sent if the sum of what is spent, what is
reserved and its own reservation is within the limit, or if no other call is in progress. After the call, its usage is
counted and its reservation is released.

Guarantee: a limit is exceeded by one call at most, whatever the calls cost, in any mixture, and whether they succeed,
fail, lose their connection or are cancelled. A call whose end is not seen, or whose provider does not report its usage,
is counted by an estimate, and marked as estimated.

Not guaranteed: if a provider reports more than was reserved (it counts tokens that are not in the prompt, ignores the
limit of the reply, or has other prices), its report is counted, and the calls in progress at that moment may exceed
their reservations, too. From then on the model's reservations are multiplied by the worst ratio seen. Charges that a
provider does not report cannot be counted: thinking in a reply without usage, a refusal that it charges, or requests
that a gateway repeats by itself. If an SDK repeats a call after a time-out and it then succeeds, it is counted once; if
all its tries fail, each is.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from rlm_kernel.clients import estimates
from rlm_kernel.clients.estimates import Bound
from rlm_kernel.clients.requests_sent import RequestsSent
from rlm_kernel.errors import (
    BudgetExceededError,
    ConfigError,
    LimitError,
    LMError,
    TimeoutExceededError,
    TokenLimitExceededError,
)
from rlm_kernel.kernel.outputs import OutputRoom
from rlm_kernel.types import Reply, Usage, UsageMeter

MAX_TOOL_CALLS = 64
"""Concurrent calls of tools, over the whole tree: each has its own thread, and a cell may start any number."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The documented limits; None is no limit.

    Attributes:
        max_budget: US dollars, as far as providers report or price tables know the cost.
        max_timeout: seconds of wall-clock time.
        max_tokens: input and output tokens together.
        max_errors: consecutive cells that raise an exception.
        max_calls: prompts of sub-calls, over the whole tree. Further ones have no answer, and the run continues.
    """

    max_budget: float | None = None
    max_timeout: float | None = None
    max_tokens: int | None = None
    max_errors: int | None = None
    max_calls: int | None = None


NO_LIMITS = Limits()


@dataclass(slots=True)
class Allowance:
    """A limit on a sum to which many calls add concurrently.

    Attributes:
        limit: the limit; infinity: none.
        spent: the sum of the finished calls.
        estimated: how much of that is an estimate.
        reserved: the upper bounds of the calls in progress.
    """

    limit: float
    spent: float = 0.0
    estimated: float = 0.0
    reserved: float = 0.0

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left."""
        return self.spent >= self.limit

    def fits(self, amount: float) -> bool:
        """Whether a call with this upper bound can start while others are in progress."""
        return self.limit == math.inf or self.spent + self.reserved + amount <= self.limit


@dataclass(slots=True)
class Rates:
    """What is known of one model from its calls: its prices, and by how much it exceeds the bounds of calls.

    The price of a token is at most the cost of a call divided by its tokens; the lowest such price
    is an upper bound, as long as the provider's prices do not change.

    Attributes:
        input_price, output_price: US dollars of a token, at most; infinity before a call has reported its cost.
        token_ratio, cost_ratio: the worst of what was reported to what was expected, 1 at least.
        dearest: the dearest call so far.
        owed: tokens of prompts and of replies whose cost is not known yet.
    """

    input_price: float = math.inf
    output_price: float = math.inf
    token_ratio: float = 1.0
    cost_ratio: float = 1.0
    dearest: float = 0.0
    owed: tuple[int, int] = (0, 0)

    def price(self, limit: Bound, read: int, wrote: int) -> float:
        """The most that these tokens cost, in US dollars; infinity when it is unknown."""
        known = limit.price(read, wrote)
        if known is not None:
            return known or self.dearest  # a model that is listed as free and was charged
        dollars = [count * price for count, price in ((read, self.input_price), (wrote, self.output_price)) if count]
        return sum(dollars) or self.dearest

    def learn(self, limit: Bound, usage: Usage) -> None:
        """Learn from the reported usage of a call."""
        if usage.estimated_tokens:
            return
        read, wrote = usage.input_tokens, usage.output_tokens
        self.token_ratio = max(self.token_ratio, read / limit.input_tokens, wrote / limit.output_tokens)
        if usage.cost is None or usage.estimated_cost:
            return
        expected = self.price(limit, read, wrote)
        if 0 < expected < math.inf:
            self.cost_ratio = max(self.cost_ratio, usage.cost / expected)
        self.dearest = max(self.dearest, usage.cost)
        self.input_price = min(self.input_price, usage.cost / max(1, usage.input_tokens - usage.cached_tokens))
        if usage.output_tokens:
            self.output_price = min(self.output_price, usage.cost / usage.output_tokens)


class Ledger:
    """The usage and the limits of a tree of runs. Used in one event loop.

    Args:
        limits: the limits of the tree.
        max_queries: sub-calls in flight over the whole tree.
        of_batch: whether the limits are those of a batch, for messages.

    Attributes:
        broken: the error of the limit that was reached, or of `on_tool`; or None. Once it is set, every run of the tree
            ends.
        max_queries: as given.
        turn: held by a sub-call while it is in flight.
        tool_turn: held by a call of a custom tool while it runs.
        outputs: the memory for the outputs of cells.
    """

    def __init__(self, limits: Limits, max_queries: int = 16, *, of_batch: bool = False) -> None:
        self._of_batch = of_batch
        self.broken: Exception | None = None
        self.max_queries = max_queries
        self.turn = asyncio.Semaphore(max_queries)
        self.tool_turn = asyncio.Semaphore(MAX_TOOL_CALLS)
        self.outputs = OutputRoom()
        self._limits = limits
        self._calls = 0
        self._started = time.monotonic()
        self._budget = Allowance(math.inf if limits.max_budget is None else limits.max_budget)
        self._tokens = Allowance(math.inf if limits.max_tokens is None else limits.max_tokens)
        self._rates: dict[str, Rates] = defaultdict(Rates)
        self._under_way = 0
        self._queue: list[Receipt] = []
        self._changed = asyncio.Event()
        self._unpriced: dict[str, bool] = {}
        self._estimated: dict[str, bool] = {}

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """A context that is cancelled at the deadline.

        Raises:
            TimeoutExceededError: the deadline has passed.
        """
        try:
            async with asyncio.timeout(self.seconds_left) as timeout:
                yield
        except TimeoutError:
            if timeout.expired():
                raise TimeoutExceededError(elapsed=self._elapsed, timeout=self._limits.max_timeout or 0.0) from None
            raise

    @property
    def seconds_left(self) -> float | None:
        """Until the deadline; None without one."""
        limit = self._limits.max_timeout
        return None if limit is None else max(0.0, limit - self._elapsed)

    def take_call(self) -> bool:
        """Count a prompt of a sub-call. False: `max_calls` does not admit it."""
        self._calls += 1
        return self._limits.max_calls is None or self._calls <= self._limits.max_calls

    def count_calls(self, calls: int) -> None:
        """Count prompts of sub-calls of an earlier run that this one resumes."""
        self._calls += calls

    def left(self) -> dict[str, float | None]:
        """What is left of each limit of the tree: seconds, tokens, cost (US dollars), calls; None: no limit."""
        limits, seconds = self._limits, self.seconds_left
        return {
            "seconds": None if seconds is None else round(seconds, 3),
            "tokens": None if limits.max_tokens is None else max(0, limits.max_tokens - int(self._tokens.spent)),
            "cost": None if limits.max_budget is None else max(0.0, round(limits.max_budget - self._budget.spent, 6)),
            "calls": None if limits.max_calls is None else max(0, limits.max_calls - self._calls),
        }

    @property
    def counts_dollars(self) -> bool:
        """Whether there is a budget."""
        return self._budget.limit < math.inf

    def lacks_price(self, model: str) -> bool:
        """Whether a model has answered and its cost is still unknown."""
        rates = self._rates[model]
        return any(rates.owed) and rates.input_price == math.inf

    def take_unpriced(self) -> list[str]:
        """Models whose cost is unknown while there is a budget, each once."""
        return _unreported(self._unpriced)

    def take_estimated(self) -> list[str]:
        """Models of which a call was counted by an estimate, each once."""
        return _unreported(self._estimated)

    @asynccontextmanager
    async def call(self, model: str, limit: Bound, meter: UsageMeter, receipt: Receipt) -> AsyncIterator[None]:
        """A context for one call of a model: waits until the limits admit it. The result is stored in the receipt.

        Calls are admitted in the order of arrival, so that cheap ones do not delay an expensive one for ever.

        Raises:
            BudgetExceededError, TokenLimitExceededError: nothing is left.
        """
        await self._admitted(model, limit, receipt)
        tokens, dollars = self._reservation(model, limit)
        self._under_way += 1
        self._tokens.reserved += tokens
        # A call of unknown cost runs alone: no other is admitted with it, so it needs no reservation.
        self._budget.reserved += dollars
        try:
            yield
        except LMError as error:
            receipt.requests = error.requests
            if error.usage is not None:
                receipt.reply = Reply("", model, error.usage, None)
            raise
        except ConfigError:  # the SDK could not be opened
            receipt.requests = 0
            raise
        finally:
            self._under_way -= 1
            self._tokens.reserved -= tokens
            self._budget.reserved = 0.0 if self._under_way == 0 else self._budget.reserved - dollars
            self._settle(model, limit, meter, receipt)
            self._wake()

    def count(self, model: str, usage: Usage, meter: UsageMeter) -> None:
        """Count a call of an earlier run that this one resumes."""
        self._add(model, estimates.recorded(usage), meter)

    def check(self) -> None:
        """Check the limits.

        Raises:
            BudgetExceededError, TokenLimitExceededError: a limit is reached.
        """
        budget, tokens = self._budget, self._tokens
        if budget.exhausted:
            spent, guessed = budget.spent, budget.estimated
            self._break(BudgetExceededError(spent, budget.limit, estimated=guessed, of_batch=self._of_batch))
        if tokens.exhausted:
            used, most, guess = int(tokens.spent), int(tokens.limit), int(tokens.estimated)
            self._break(TokenLimitExceededError(used, most, estimated=guess, of_batch=self._of_batch))

    async def _admitted(self, model: str, limit: Bound, receipt: Receipt) -> None:
        self._queue.append(receipt)
        try:
            while not (self._exhausted or (self._queue[0] is receipt and self._admits(model, limit))):
                await self._changed.wait()
        finally:
            self._queue.remove(receipt)
            self._wake()
        self.check()

    def _admits(self, model: str, limit: Bound) -> bool:
        if self._under_way == 0 or (self._budget.limit == self._tokens.limit == math.inf):
            return True
        tokens, dollars = self._reservation(model, limit)
        return self._tokens.fits(tokens) and self._budget.fits(dollars)

    def _reservation(self, model: str, limit: Bound) -> tuple[float, float]:
        """Tokens and US dollars that a call may take; the price is only looked up where there is a budget."""
        if self._budget.limit == self._tokens.limit == math.inf:
            return 0, 0.0
        known = self._as_known(model, limit)
        if self._budget.limit == math.inf:
            return known.tokens, 0.0
        dollars = known.price(known.input_tokens, known.output_tokens)
        return known.tokens, math.inf if dollars is None else dollars

    def _settle(self, model: str, limit: Bound, meter: UsageMeter, receipt: Receipt) -> None:
        """Count the usage of a call."""
        known = self._as_known(model, limit)
        usage = None if receipt.reply is None else estimates.believed(receipt.reply, known)
        if usage is not None:
            self._rates[model].learn(limit, usage)
        if requests := receipt.lost:
            lost = estimates.lost(known, requests)
            usage = lost if usage is None else usage.plus(lost)
        receipt.usage = usage
        if usage is not None:
            self._add(model, usage, meter)

    def _as_known(self, model: str, limit: Bound) -> Bound:
        """The bound of a call, corrected by what its model has shown so far."""
        rates = self._rates[model]

        def price(read: int, wrote: int) -> float | None:
            dollars = rates.price(limit, read, wrote) * rates.cost_ratio
            return dollars if dollars < math.inf else None

        ratio = rates.token_ratio
        return Bound(math.ceil(limit.input_tokens * ratio), math.ceil(limit.output_tokens * ratio), price)

    def _add(self, model: str, usage: Usage, meter: UsageMeter) -> None:
        meter.add(model, usage)
        self._tokens.spent += usage.input_tokens + usage.output_tokens
        self._tokens.estimated += usage.estimated_tokens
        self._budget.spent += usage.cost or 0.0
        self._budget.estimated += usage.estimated_cost
        if usage.estimated_tokens or usage.estimated_cost:
            self._estimated.setdefault(model, False)
        if self._limits.max_budget is not None:
            self._charge(model, usage)

    def _charge(self, model: str, usage: Usage) -> None:
        """Usage of unknown cost is remembered, and charged when a later call shows the prices of the model."""
        rates = self._rates[model]
        if usage.cost is None:
            self._unpriced.setdefault(model, False)
            rates.owed = rates.owed[0] + usage.input_tokens, rates.owed[1] + usage.output_tokens
            return
        (read, wrote), no_price = rates.owed, Bound(1, 1)
        if (read or wrote) and (debt := rates.price(no_price, read, wrote)) < math.inf:
            self._budget.spent += debt
            self._budget.estimated += debt
            rates.owed = (0, 0)

    def _wake(self) -> None:
        if self._queue:
            self._changed.set()
            self._changed = asyncio.Event()

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    @property
    def _exhausted(self) -> bool:
        return self._budget.exhausted or self._tokens.exhausted

    def _break(self, error: LimitError) -> None:
        self.broken = self.broken or error
        raise error


@dataclass(slots=True, eq=False)
class Receipt:
    """The result of one call.

    Attributes:
        reply: the reply; None while the call is in progress, and if there is none.
        requests: how many of its requests may be charged if there is no reply and `sent` does not count them.
        sent: its requests.
        usage: the usage that was counted for it, or None.
    """

    reply: Reply | None = None
    requests: int = 1
    sent: RequestsSent = field(default_factory=RequestsSent)
    usage: Usage | None = None

    @property
    def lost(self) -> int:
        """How many of its requests may be charged without a usage that was seen."""
        has_usage = self.reply is not None
        return self.sent.lost(has_usage=has_usage) if self.sent.counted else self.requests * (not has_usage)


def _unreported(models: dict[str, bool]) -> list[str]:
    new = [model for model, reported in models.items() if not reported]
    models.update(dict.fromkeys(new, True))
    return new
