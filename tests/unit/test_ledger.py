"""The ledger against providers that say anything: what it promises of every mix of calls, and what of liars."""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlm_kernel.clients.estimates import MAX_TOKENS_OF_CALL, Bound, believed, bound
from rlm_kernel.engine.budget import Ledger, Limits, Receipt
from rlm_kernel.errors import LimitError, TokenLimitExceededError
from rlm_kernel.prompts import LARGE
from rlm_kernel.types import Image, Reply, Usage, UsageMeter

MODELS = {"a": (1e-6, 4e-6), "b": (2e-3, 1e-2), "free": (0.0, 0.0)}
"""Prices of a token of prompt and of reply."""

OUTCOMES = ["says", "says nothing", "says zero", "says less than zero", "says no number"]
OUTCOMES += ["is cut", "refuses", "breaks off", "is cancelled"]


@dataclass(frozen=True)
class Planned:
    """A call to come: at most `most` tokens, of which it takes the share `share`."""

    model: str
    most: tuple[int, int]
    share: float
    outcome: str
    steps: int

    @property
    def used(self):
        return tuple(max(1, int(n * self.share)) for n in self.most)

    @property
    def cost(self):
        return sum(n * price for n, price in zip(self.used, MODELS[self.model], strict=True))


SIZES = st.one_of(st.integers(1, 50), st.integers(1, 20_000))
PLANNED = st.builds(
    Planned,
    st.sampled_from(sorted(MODELS)),
    st.tuples(SIZES, SIZES),
    st.floats(0, 1),
    st.sampled_from(OUTCOMES),
    st.integers(0, 4),
)
CALLS = st.lists(PLANNED, min_size=1, max_size=40)


def price_of(model):
    return lambda read, wrote: read * MODELS[model][0] + wrote * MODELS[model][1]


class Provider:
    """Takes calls on a ledger; `billed` is what it charges, whatever it says."""

    def __init__(self, limits, *, prices_known=True):
        self.ledger, self.meter = Ledger(limits, 16), UsageMeter()
        self.prices_known = prices_known
        self.billed, self.in_flight, self.max_in_flight, self.excess = [], 0, 0, 0.0

    async def call(self, planned):
        price = price_of(planned.model) if self.prices_known else (lambda *_: None)
        limit, receipt = Bound(*planned.most, price), Receipt()
        async with self.ledger.call(planned.model, limit, self.meter, receipt):
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            try:
                await self.answer(planned, receipt)
            finally:
                self.in_flight -= 1

    async def answer(self, planned, receipt):
        bills = planned.outcome != "refuses"
        if bills:
            self.billed.append((sum(planned.used), planned.cost))
        for _ in range(planned.steps):
            await asyncio.sleep(0)
        if planned.outcome == "is cancelled":
            raise asyncio.CancelledError
        if planned.outcome in ("refuses", "breaks off"):
            receipt.requests = int(bills)
            raise ConnectionError(planned.outcome)
        receipt.reply = said_of(planned)


def said_of(planned):
    read, wrote = planned.used
    text = "x" * wrote  # a token is a byte at least
    match planned.outcome:
        case "says":
            usage = Usage(read, wrote, cost=planned.cost)
        case "says nothing" | "is cut":
            usage = Usage()
        case "says zero":
            usage = Usage(0, 0, 0, cost=0.0)
        case "says less than zero":
            usage = Usage(-read, -wrote, -5, cost=-planned.cost)
        case _:
            usage = Usage(math.nan, True, "7", cost=math.nan)
    cut = planned.outcome == "is cut"
    return Reply("" if cut else text, planned.model, usage, "length" if cut else "stop")


def spend(provider, calls, workers):
    async def work(todo):
        for planned in todo:
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await provider.call(planned)

    async def everything():
        todo = iter(calls)
        return await asyncio.gather(*(work(todo) for _ in range(workers)), return_exceptions=True)

    outcomes = asyncio.run(everything())
    assert all(outcome is None or isinstance(outcome, LimitError) for outcome in outcomes)


def fits(spent, limit, calls):
    return spent <= limit * (1 + 1e-9) + max(calls, default=0) + 1e-9


@given(calls=CALLS, limit=st.integers(1, 100_000), workers=st.integers(1, 16))
def test_tokens_are_overshot_by_at_most_one_call_in_every_mix(calls, limit, workers):
    provider = Provider(Limits(max_tokens=limit))
    spend(provider, calls, workers)
    billed = [tokens for tokens, _ in provider.billed]
    summary = provider.meter.summary()
    counted = summary.total_input_tokens + summary.total_output_tokens
    assert fits(sum(billed), limit, billed)
    assert sum(billed) <= counted
    assert counted >= limit or len(provider.billed) >= sum(planned.outcome != "refuses" for planned in calls)


@given(calls=CALLS, limit=st.floats(1e-6, 50), workers=st.integers(1, 16))
def test_a_budget_is_overshot_by_at_most_one_call_in_every_mix(calls, limit, workers):
    provider = Provider(Limits(max_budget=limit))
    spend(provider, calls, workers)
    billed = [cost for _, cost in provider.billed]
    assert fits(sum(billed), limit, billed)
    assert sum(billed) <= provider.meter.summary().total.cost + 1e-9 if provider.billed else True


@given(calls=CALLS, limit=st.floats(1e-6, 50), workers=st.integers(1, 16))
def test_prices_that_nobody_knows_before_are_learned_from_the_calls(calls, limit, workers):
    honest = [planned for planned in calls if planned.outcome in ("says", "refuses", "is cancelled")]
    known_first = [Planned(model, (10, 10), 1.0, "says", 0) for model in MODELS]
    provider = Provider(Limits(max_budget=limit), prices_known=False)
    spend(provider, known_first, 1)
    spend(provider, honest, workers)
    billed = [cost for _, cost in provider.billed]
    assert fits(sum(billed), limit, billed)


@given(calls=CALLS, limit=st.integers(1, 100_000), workers=st.integers(1, 16), lies=st.floats(1, 1e6))
def test_who_reports_more_than_was_reserved_is_believed_and_reserved_for_from_then_on(calls, limit, workers, lies):
    class Liar(Provider):
        async def answer(self, planned, receipt):
            reserved, _ = self.ledger._reservation(planned.model, Bound(*planned.most))
            for _ in range(planned.steps):
                await asyncio.sleep(0)
            read, wrote = (min(int(n * lies), MAX_TOKENS_OF_CALL) for n in planned.used)
            receipt.reply = Reply("x", planned.model, Usage(read, wrote, cost=0.0))
            self.billed.append((read + wrote, 0.0))
            self.excess += max(0.0, read + wrote - reserved)

    provider = Liar(Limits(max_tokens=limit))
    spend(provider, calls, workers)
    billed = [tokens for tokens, _ in provider.billed]
    assert sum(billed) <= limit + max(billed) + provider.excess
    summary = provider.meter.summary()
    assert summary.total_input_tokens + summary.total_output_tokens == sum(billed)
    assert summary.estimated_tokens == 0


def test_one_cheap_call_and_then_sixteen_dear_ones_overshoot_by_one():
    cheap, dear = Planned("a", (100, 10), 0.1, "says", 1), Planned("a", (50_000, 50_000), 1.0, "says", 3)
    provider = Provider(Limits(max_tokens=1_000))
    spend(provider, [cheap, *[dear] * 16], 16)
    assert [tokens for tokens, _ in provider.billed] == [11, 100_000]


@pytest.mark.parametrize(("limit", "in_flight"), [(20_000, 1), (200_000, 12), (None, 16)])
def test_small_calls_run_side_by_side_while_the_limits_of_their_replies_fit(limit, in_flight):
    provider = Provider(Limits(max_tokens=limit))
    spend(provider, [Planned("a", (100, LARGE.sub_reply_tokens), 0.001, "says", 4)] * 32, 16)
    assert provider.max_in_flight == in_flight
    assert len(provider.billed) == 32


def test_calls_that_are_cancelled_use_up_a_budget():
    provider = Provider(Limits(max_budget=0.5))
    spend(provider, [Planned("b", (10, 10), 1.0, "is cancelled", 2)] * 200, 8)
    assert sum(cost for _, cost in provider.billed) == pytest.approx(0.6)
    assert provider.meter.summary().model_usage_summaries["b"].estimated_cost == pytest.approx(0.6)
    assert provider.ledger.take_estimated() == ["b"]
    assert provider.ledger.take_estimated() == []


def test_what_was_cancelled_before_a_price_was_known_is_counted_once_it_is():
    provider = Provider(Limits(max_budget=1.0), prices_known=False)
    spend(provider, [Planned("b", (100, 100), 1.0, "is cancelled", 1)], 1)
    assert provider.ledger._budget.spent == 0
    spend(provider, [Planned("b", (10, 10), 1.0, "says", 1)], 1)
    assert provider.ledger._budget.spent >= sum(cost for _, cost in provider.billed)


def test_a_model_without_a_price_runs_alone_until_one_is_known():
    provider = Provider(Limits(max_budget=1000.0), prices_known=False)
    spend(provider, [Planned("a", (10, 10), 1.0, "says nothing", 2)] * 5, 5)
    assert provider.max_in_flight == 1
    spend(provider, [Planned("a", (10, 10), 1.0, "says", 2)] * 16, 16)
    spend(provider, [Planned("a", (10, 10), 1.0, "says", 2)] * 16, 16)
    assert provider.max_in_flight == 16


@pytest.mark.parametrize("limits", [Limits(), Limits(max_tokens=10**9, max_budget=10**6)])
def test_where_limits_are_far_away_nothing_waits(limits):
    provider = Provider(limits)
    spend(provider, [Planned("b", (1_000, 4_000), 0.5, "says", 3)] * 64, 16)
    assert provider.max_in_flight == 16
    assert len(provider.billed) == 64


def test_a_dear_call_is_not_passed_by_cheap_ones_for_ever():
    async def race():
        ledger, meter, order = Ledger(Limits(max_tokens=1_000)), UsageMeter(), []

        async def call(name, tokens, steps):
            async with ledger.call("m", Bound(tokens, 1), meter, receipt := Receipt()):
                order.append(name)
                for _ in range(steps):
                    await asyncio.sleep(0)
                receipt.reply = Reply("x", "m", Usage(1, 1))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(call("first", 400, 5))
            await asyncio.sleep(0)
            tasks.create_task(call("dear", 900, 1))
            await asyncio.sleep(0)
            for _ in range(10):
                tasks.create_task(call("cheap", 10, 1))
        return order

    assert asyncio.run(race())[:2] == ["first", "dear"]


def test_who_waits_and_is_cancelled_leaves_the_queue():
    async def wait():
        ledger, meter = Ledger(Limits(max_tokens=100)), UsageMeter()

        async def call(tokens):
            async with ledger.call("m", Bound(tokens, 1), meter, receipt := Receipt()):
                await asyncio.sleep(0.01)
                receipt.reply = Reply("x", "m", Usage(1, 1))

        first, second, third = (asyncio.create_task(call(80)) for _ in range(3))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(first, third)
        assert second.cancelled()
        return meter.summary()

    assert asyncio.run(wait()).total_calls == 2


@given(st.text(max_size=300), st.integers(1, 100))
@example("ẞ" * 100, 1)
def test_the_bound_of_a_prompt_is_at_least_its_bytes(text, limit):
    most = bound([{"role": "user", "content": text}], reply_tokens=limit)
    assert most.input_tokens >= len(text.encode())
    assert most.output_tokens == limit


def test_pictures_schemas_and_missing_limits_are_a_part_of_the_bound():
    plain = bound([{"role": "user", "content": "x"}], reply_tokens=None, window=8_000)
    picture = Image("image/png", "hash", 1)
    seen = bound([{"role": "user", "content": "x", "images": (picture,)}], {"type": "object"}, reply_tokens=None)
    assert plain.output_tokens == 8_000
    assert seen.output_tokens > 100_000
    assert seen.input_tokens > plain.input_tokens + 40_000


@settings(max_examples=300)
@given(
    *[st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.just(10**400), st.text(max_size=3))] * 4,
    st.text(max_size=20),
)
def test_whatever_a_provider_says_an_amount_is_one(read, wrote, cached, cost, text):
    usage = believed(Reply(text, "m", Usage(read, wrote, cached, cost)), Bound(10, 20, price_of("a")))
    assert all(isinstance(n, int) and 0 <= n <= MAX_TOKENS_OF_CALL for n in (usage.input_tokens, usage.output_tokens))
    assert usage.input_tokens > 0
    assert usage.output_tokens > 0 or not text
    assert usage.cost is None or (0 <= usage.cost < math.inf)


@pytest.mark.parametrize("usage", [Usage(-(10**9), 5), Usage(5, -(10**9), cost=-1.0), Usage(math.nan, 1)])
def test_a_strangers_record_gives_nothing_back(usage):
    ledger, meter = Ledger(Limits(max_tokens=10, max_budget=1.0)), UsageMeter()
    ledger.count("m", Usage(10, 5, cost=0.5), meter)
    ledger.count("m", usage, meter)
    with pytest.raises(TokenLimitExceededError, match="used (15|16|20) tokens"):
        ledger.check()
