"""What a root completion and all its children may spend, kept in one ledger that holds under concurrency.

Calls that run side by side reserve before they are sent: as much as the dearest call of that model so far; while there
was none, the first one goes alone. So a limit is overshot by at most one call, as long as a call costs no more than the
dearest before it; what it costs more comes on top.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rlm_kernel.errors import (
    BudgetExceededError,
    ErrorThresholdExceededError,
    LimitError,
    TimeoutExceededError,
    TokenLimitExceededError,
)
from rlm_kernel.records import Usage
from rlm_kernel.usage import UsageMeter

MOST_TOOL_CALLS = 64
"""At a time, over the whole tree: each has a thread of its own, and a cell may have any number."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The documented limits; None is no limit.

    Attributes:
        max_budget: US dollars, as far as providers report or price tables know the cost.
        max_timeout: seconds of wall-clock time.
        max_tokens: input and output tokens together.
        max_errors: cells in a row that raise.
    """

    max_budget: float | None = None
    max_timeout: float | None = None
    max_tokens: int | None = None
    max_errors: int | None = None


NO_LIMITS = Limits()


class Allowance:
    """A bound on a sum that many calls add to at once.

    Args:
        limit: the bound; infinity for none.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.spent = 0.0
        self._reserved = 0.0
        self._under_way = 0
        self._dearest: dict[str, float] = {}

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left."""
        return self.spent >= self.limit

    def admits(self, model: str) -> bool:
        """Whether one more call of a model may start now. One that runs alone always may: it can overshoot."""
        if self._under_way == 0 or self.limit == math.inf:
            return True
        dearest = self._dearest.get(model)
        return dearest is not None and self.spent + self._reserved + dearest <= self.limit

    def start(self, model: str) -> float:
        """Begin a call; returns what is reserved for it, which `settle` wants back."""
        reserved = self._dearest.get(model, 0.0)
        self._under_way += 1
        self._reserved += reserved
        return reserved

    def settle(self, model: str, reserved: float, amount: float | None) -> None:
        """A call is over. None: nobody knows what it took, so there is nothing to count, now or for the next."""
        self.give_up(reserved)
        self.spent += amount or 0.0
        self._dearest[model] = max(self._dearest.get(model, 0.0), amount or 0.0)

    def give_up(self, reserved: float) -> None:
        """A call failed: it took nothing, and the next of its model is as unknown as before."""
        self._under_way -= 1
        self._reserved -= reserved


class Ledger:
    """What a tree of runs has spent, and what is left. Used in one event loop.

    Args:
        limits: what the tree may spend.
        most_queries: sub-calls in flight over the whole tree.

    Attributes:
        broken: the sum that was used up, or None. Once it is set every run of the tree ends.
        most_queries: as given.
        turn: held by a sub-call while it is in flight.
        tool_turn: held by a call of a custom tool while it runs.
    """

    def __init__(self, limits: Limits, most_queries: int = 16) -> None:
        self.broken: LimitError | None = None
        self.most_queries = most_queries
        self.turn = asyncio.Semaphore(most_queries)
        self.tool_turn = asyncio.Semaphore(MOST_TOOL_CALLS)
        self._limits = limits
        self._started = time.monotonic()
        self._budget = Allowance(math.inf if limits.max_budget is None else limits.max_budget)
        self._tokens = Allowance(math.inf if limits.max_tokens is None else limits.max_tokens)
        self._settled = asyncio.Event()
        self._unpriced: dict[str, bool] = {}

    @property
    def seconds_left(self) -> float | None:
        """Until the deadline; None when there is none."""
        if self._limits.max_timeout is None:
            return None
        return max(0.0, self._limits.max_timeout - self._elapsed)

    def take_unpriced(self) -> list[str]:
        """Models that a budget is set for and whose cost nobody knows, each once."""
        new = [model for model, told in self._unpriced.items() if not told]
        self._unpriced.update(dict.fromkeys(new, True))
        return new

    @asynccontextmanager
    async def call(self, model: str, meter: UsageMeter) -> AsyncIterator[Receipt]:
        """Around one call of a model: waits until the limits admit it. Put the usage on the receipt, for the meter.

        Raises:
            BudgetExceededError, TokenLimitExceededError: nothing is left.
        """
        while not (self._exhausted or (self._budget.admits(model) and self._tokens.admits(model))):
            self._settled.clear()
            await self._settled.wait()
        self.check()
        reserved = self._budget.start(model), self._tokens.start(model)
        receipt = Receipt()
        try:
            yield receipt
        finally:
            if receipt.usage is None:
                self._budget.give_up(reserved[0])
                self._tokens.give_up(reserved[1])
            else:
                meter.add(model, receipt.usage)
                self._settle(model, reserved, receipt.usage)
            self._settled.set()

    def count(self, model: str, usage: Usage, meter: UsageMeter) -> None:
        """Take in a call of an earlier run that this one goes on from."""
        meter.add(model, usage)
        self._budget.spent += usage.cost or 0.0
        self._tokens.spent += usage.input_tokens + usage.output_tokens

    def check(self) -> None:
        """See whether a sum is used up.

        Raises:
            BudgetExceededError, TokenLimitExceededError: it is.
        """
        if self._budget.exhausted:
            self._break(BudgetExceededError(spent=self._budget.spent, budget=self._budget.limit))
        if self._tokens.exhausted:
            self._break(
                TokenLimitExceededError(tokens_used=int(self._tokens.spent), token_limit=int(self._tokens.limit))
            )

    def timed_out(self) -> TimeoutExceededError:
        """The error for a run whose time is over."""
        limit = self._limits.max_timeout or 0.0
        return TimeoutExceededError(elapsed=self._elapsed, timeout=limit)

    def _settle(self, model: str, reserved: tuple[float, float], usage: Usage) -> None:
        if usage.cost is None and self._limits.max_budget is not None:
            self._unpriced.setdefault(model, False)
        self._budget.settle(model, reserved[0], usage.cost)
        self._tokens.settle(model, reserved[1], usage.input_tokens + usage.output_tokens)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    @property
    def _exhausted(self) -> bool:
        return self._budget.exhausted or self._tokens.exhausted

    def _break(self, error: LimitError) -> None:
        self.broken = self.broken or error
        raise error


@dataclass(slots=True)
class Receipt:
    """What a call took, once it is known. A call that failed leaves it empty."""

    usage: Usage | None = None


class ErrorCount:
    """The cells in a row that raised, of one run: a child's errors are not its parent's.

    Args:
        most: how many end the run; None for no limit.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._count = 0

    def add(self, error: str | None) -> None:
        """A cell is over; `error` is the traceback of what it raised, or None.

        Raises:
            ErrorThresholdExceededError: it was the last of too many in a row.
        """
        self._count = 0 if error is None else self._count + 1
        if error is not None and self._most is not None and self._count >= self._most:
            raise ErrorThresholdExceededError(error_count=self._count, threshold=self._most, last_error=error)
