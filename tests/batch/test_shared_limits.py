"""What many runs share: a budget, and the calls and tokens per minute of a model."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from rlm_kernel.clients.base import BaseLM
from rlm_kernel.clients.estimates import Bound
from rlm_kernel.clients.rate_limits import Allowed, RateSeen, read_headers
from rlm_kernel.engine import shared_limits
from rlm_kernel.engine.budget import Limits, Receipt
from rlm_kernel.engine.shared_limits import Bucket, RateLimit, RatePerMinute, SharedLimits
from rlm_kernel.errors import TokenLimitExceededError
from rlm_kernel.types import Reply, Usage


class Clock:
    """A clock that only moves when somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(shared_limits.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(shared_limits.time, "time", lambda: self.now)
        monkeypatch.setattr(shared_limits.asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_bucket_refills_evenly(clock: Clock) -> None:
    bucket = Bucket(60)
    bucket.take(60)

    assert bucket.delay(10) == pytest.approx(10)
    clock.now += 10
    assert bucket.delay(10) == 0
    assert bucket.delay(1000) == pytest.approx(50), "more than the bucket holds waits until it is full"


async def test_calls_wait_for_their_turn(clock: Clock) -> None:
    limit = RateLimit(RatePerMinute(requests=30))
    for _ in range(60):
        await limit.admit(100)

    assert clock.now - 1000 == pytest.approx(60)


async def test_tokens_that_were_not_used_are_given_back(clock: Clock) -> None:
    limit = RateLimit(RatePerMinute(tokens=6000))
    for _ in range(10):
        await limit.admit(6000)
        limit.settle(5900)

    assert clock.now - 1000 == pytest.approx(9)


async def test_the_limits_of_the_provider_are_followed(clock: Clock) -> None:
    limit = RateLimit(RatePerMinute())
    seen = RateSeen(Allowed(60, 0), paused_until=1007.0)
    await limit.admit(1, seen)

    assert clock.now == pytest.approx(1007)
    await limit.admit(1, seen)
    assert clock.now == pytest.approx(1007), "the bucket was refilled while it was paused, and headers count once"


async def test_a_limit_that_a_provider_reports_stops_no_call_for_longer_than_a_pause(clock: Clock) -> None:
    limit = RateLimit(RatePerMinute(), "m")
    await limit.admit(510, RateSeen(tokens=Allowed(1)))
    with pytest.warns(RuntimeWarning, match="Calls of m wait, the next one for 600 s: the limit is 1 tokens a minute"):
        await limit.admit(510)

    assert clock.now - 1000 == pytest.approx(600)


async def test_a_long_pause_is_reported_once(clock: Clock) -> None:
    limit = RateLimit(RatePerMinute())

    async def pause_twice() -> None:
        await limit.admit(1, RateSeen(paused_until=1600))
        await limit.admit(1, RateSeen(paused_until=2200))

    with pytest.warns(RuntimeWarning, match="600 s: the provider's headers ask for a pause") as warned:
        await pause_twice()

    assert clock.now == pytest.approx(2200)
    assert len(warned) == 1


async def test_a_limit_of_the_user_is_kept_however_long_that_takes(clock: Clock) -> None:
    limit = RateLimit(RatePerMinute(tokens=10))
    await limit.admit(500)
    with pytest.warns(RuntimeWarning, match="the limit is 10 tokens a minute"):
        await limit.admit(500)

    assert clock.now - 1000 == pytest.approx(3000)


def test_the_headers_of_openai_and_anthropic() -> None:
    now = time.time()
    openai = read_headers(200, {
        "x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-limit-tokens": "30000", "x-ratelimit-remaining-tokens": "29000",
        "x-ratelimit-reset-requests": "1m30s", "x-ratelimit-reset-tokens": "120ms",
    })  # fmt: skip
    anthropic = read_headers(429, {"retry-after": "17", "anthropic-ratelimit-tokens-limit": "40000"})

    assert openai is not None
    assert (openai.requests, openai.tokens) == (Allowed(500, 0), Allowed(30000, 29000))
    assert openai.paused_until - now == pytest.approx(90, abs=5)
    assert anthropic is not None
    assert anthropic.tokens == Allowed(40000)
    assert anthropic.paused_until - now == pytest.approx(17, abs=5)


@pytest.mark.parametrize("value", ["", "nan", "-5", "9" * 400, "x", "1e9", "Infinity"])
def test_headers_of_nonsense_are_ignored(value: str) -> None:
    headers = {
        name.format(what): value for name in ("x-ratelimit-{}-tokens",) for what in ("limit", "remaining", "reset")
    }

    assert read_headers(200, headers) is None
    seen = read_headers(429, {"retry-after": value})
    assert seen is not None
    assert seen.paused_until - time.time() <= 600


class Model(BaseLM):
    backend, model = "test", "model"


async def ask(shared: SharedLimits, tokens: int) -> None:
    receipt = Receipt()
    async with shared.call(Model(), Bound(tokens, tokens), receipt):
        await asyncio.sleep(0)
        receipt.reply = Reply("", "model", Usage(tokens, 0))


async def test_a_limit_holds_over_all_runs() -> None:
    shared = SharedLimits(Limits(max_tokens=1000))
    outcomes: list[Any] = await asyncio.gather(*(ask(shared, 100) for _ in range(50)), return_exceptions=True)

    assert sum(outcome is None for outcome in outcomes) == 10
    assert all(isinstance(outcome, TokenLimitExceededError) for outcome in outcomes if outcome is not None)
    assert shared.usage.summary().total_input_tokens == 1000


async def test_a_call_that_was_never_sent_costs_nothing() -> None:
    shared = SharedLimits(Limits(max_tokens=1000), RatePerMinute(requests=1))
    await ask(shared, 10)
    waiting, receipt = asyncio.ensure_future(ask(shared, 10)), Receipt()
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait({waiting})

    assert shared.usage.summary().total_input_tokens == 10
    assert receipt.requests == 1
