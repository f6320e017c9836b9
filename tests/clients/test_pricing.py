"""What a call cost: who is believed, what is worked out, and when nobody knows."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from backends_on_loopback import client_of, closed, marks
from hypothesis import given
from hypothesis import strategies as st
from loopback import Says, Sends
from remote_clients import anthropic_lm, openai_lm

from rlm_kernel.clients.pricing import Prices, Pricing, Tokens
from rlm_kernel.clients.registry import build
from rlm_kernel.errors import ConfigError
from rlm_kernel.types import Usage

QUESTION = [{"role": "user", "content": "Who are you?"}]
TOKENS = Tokens(input=1_000, output=1_000, cached=200)
OPENAI = {"provider_api_url": "https://api.openai.com/v1"}
MINE = Prices.of({"input": 10, "output": 100})


# Who is believed


def test_the_users_prices_stand_above_everything():
    assert Pricing(MINE, free=True, provider=OPENAI).cost(TOKENS, 5.0, ["gpt-5"]) == pytest.approx(0.11)


def test_what_the_provider_reports_stands_above_the_table():
    assert Pricing(provider=OPENAI).cost(TOKENS, 5.0, ["gpt-5"]) == 5.0
    assert Pricing(provider=OPENAI).cost(None, 0.0, ["gpt-5"]) == 0.0


def test_a_server_of_ones_own_sends_no_bill():
    assert Pricing(free=True).cost(None, None, ["anything"]) == 0.0


def test_the_table_is_asked_last():
    assert Pricing(provider=OPENAI).cost(TOKENS, None, ["gpt-5-mini"]) == pytest.approx(0.002205)


@pytest.mark.parametrize(
    ("pricing", "tokens", "models"),
    [
        (Pricing(), TOKENS, ["gpt-5"]),
        (Pricing(provider=OPENAI), TOKENS, ["no-such-model"]),
        (Pricing(provider={"provider_api_url": "https://models.example/v1"}), TOKENS, ["gpt-5"]),
        (Pricing(provider={"provider_id": "nobody"}), TOKENS, ["gpt-5"]),
        (Pricing(provider=OPENAI), None, ["gpt-5"]),
        (Pricing(MINE), None, ["gpt-5"]),
        (Pricing(provider=OPENAI), Tokens(input=1, cached=5), ["gpt-5"]),
        (Pricing(provider=OPENAI), Tokens(input=5, output=-1), ["gpt-5"]),
    ],
    ids=["no table", "no model", "no provider", "no such provider", "no usage", "no usage, own prices", "odd", "minus"],
)
def test_what_nobody_knows_is_none_and_never_nothing(pricing, tokens, models):
    assert pricing.cost(tokens, None, models) is None


def test_the_model_that_answered_is_charged_before_the_one_that_was_asked():
    pricing = Pricing(provider=OPENAI)
    assert pricing.cost(TOKENS, None, ["gpt-5-mini", "gpt-5"]) == pricing.cost(TOKENS, None, ["gpt-5-mini"])
    assert pricing.cost(TOKENS, None, ["alias", "gpt-5-mini"]) == pricing.cost(TOKENS, None, ["gpt-5-mini"])


# Working it out


def test_cached_and_written_tokens_have_prices_of_their_own():
    prices = Prices.of({"input": 10, "output": 100, "cached": 1, "cache_write": 12.5})
    tokens = Tokens(input=1_000, output=100, cached=400, written=200)
    assert prices.cost(tokens) == pytest.approx((400 * 10 + 400 * 1 + 200 * 12.5 + 100 * 100) / 1e6)


def test_a_cache_that_is_counted_apart_makes_no_cost_negative():
    prices = Prices.of({"input": 10, "output": 100, "cached": 1})
    assert prices.cost(Tokens(input=10, cached=1_000)) == pytest.approx(1_000 * 1 / 1e6)


USAGES = [
    {},
    {"prompt_tokens": None, "completion_tokens": None, "input_tokens": None, "output_tokens": None},
    {"total_tokens": 5_000},
    {"prompt_tokens": -1, "completion_tokens": -1, "input_tokens": -1, "output_tokens": -1},
]


@pytest.mark.parametrize("usage", USAGES, ids=str)
@pytest.mark.parametrize("backend", ["openai", "anthropic", pytest.param("litellm", marks=marks("litellm"))])
async def test_a_usage_that_tells_no_tokens_leaves_the_cost_unknown(provider, backend, usage):
    message = {"type": "message", "content": [{"type": "text", "text": "hello"}], "stop_reason": "end_turn"}
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    provider.script = [Sends(json.dumps({**message, "choices": [choice], "usage": usage}).encode())]
    lm = client_of(backend, provider, prices={"input": 1, "output": 10})
    assert (await lm.complete(QUESTION)).usage == Usage()
    await closed(lm)


async def test_a_number_below_zero_is_no_number_of_tokens_or_dollars(provider):
    usage = {"prompt_tokens": 5, "completion_tokens": -1, "cost": -2.0}
    choice = {"message": {"content": "hello"}, "finish_reason": "stop"}
    provider.script = [Sends(json.dumps({"choices": [choice], "usage": usage}).encode())]
    lm = client_of("openai", provider)
    assert (await lm.complete(QUESTION)).usage == Usage()
    await lm.close()


counts = st.integers(0, 10**9)
dollars = st.floats(0, 1e4)


@given(counts, counts, counts, counts, dollars, dollars)
def test_without_prices_for_the_cache_all_input_costs_the_same(plain, cached, written, output, price, reply_price):
    tokens = Tokens(plain + cached + written, output, cached, written)
    expected = ((plain + cached + written) * price + output * reply_price) / 1e6
    assert Prices.of({"input": price, "output": reply_price}).cost(tokens) == pytest.approx(expected)


WRONG = [
    {},
    {"input": 1},
    {"output": 1},
    {"input": 1, "output": 2, "cache": 1},
    {"input": "1", "output": 2},
    {"input": -1, "output": 2},
    {"input": True, "output": 2},
    {"input": float("nan"), "output": 2},
    {"input": float("inf"), "output": 2},
]


@pytest.mark.parametrize("prices", WRONG, ids=str)
def test_prices_that_are_none_are_refused_when_the_client_is_made(prices):
    with pytest.raises(ConfigError, match="prices.*US dollars per million tokens"):
        openai_lm("gpt-5", "key", prices=prices)


# Where the table looks

AT_HOME = [
    (openai_lm("gpt-5-mini", "key"), "gpt-5-mini"),
    (openai_lm("gpt-5-mini", "key", "https://openrouter.ai/api/v1"), None),
    (anthropic_lm("claude-sonnet-4-5", "key"), "claude-sonnet-4-5"),
    (build("openrouter", {"model_name": "openai/gpt-4o", "api_key": "key"}, {}), "openai/gpt-4o"),
    (build("gemini", {"model_name": "gemini-2.5-flash", "api_key": "key"}, {}), "gemini-2.5-flash"),
    (
        build("azure_openai", {"model_name": "mine", "api_key": "k", "base_url": "https://me.openai.azure.com"}, {}),
        "gpt-4o-2024-08-06",
    ),
    (openai_lm("gpt-5-mini", "key", "http://localhost:8000/v1"), None),
    (openai_lm("gpt-5-mini", "key", "https://models.example/v1"), None),
]


@pytest.mark.parametrize(("lm", "model"), AT_HOME, ids=lambda value: getattr(value, "_url", None))
def test_a_provider_is_known_by_its_address(lm, model):
    cost = lm.pricing.cost(TOKENS, None, lm.adapter.price_names(model or lm.model))
    assert (cost is not None) is (model is not None)


@pytest.mark.parametrize("backend", ["vllm", "ollama"])
@pytest.mark.parametrize(
    ("url", "free"),
    [
        ("http://localhost:1/v1", True),
        ("http://0.0.0.0:1/v1", True),
        ("http://[::1]:1/v1", True),
        ("http://gpu.example:8000/v1", False),
    ],
)
def test_only_a_server_on_this_machine_is_known_to_send_no_bill(backend, url, free):
    lm = build(backend, {"model_name": "m", "base_url": url}, {})
    assert lm.pricing.cost(TOKENS, None, ["m"]) == (0.0 if free else None)


async def test_a_key_of_ones_own_at_openrouter_costs_its_fee_and_the_models_price(provider):
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "cost": 0.01, "is_byok": True}
    for details, cost in [({"upstream_inference_cost": 0.2}, 0.21), ({}, None)]:
        body = {
            "choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}],
            "usage": {**usage, "cost_details": details},
        }
        provider.script = [Sends(json.dumps(body).encode())]
        lm = client_of("openrouter", provider)
        reply = await lm.complete(QUESTION)
        await lm.close()
        assert reply.usage.cost == (None if cost is None else pytest.approx(cost))


@pytest.mark.parametrize("on_text", [None, [].append], ids=["whole", "streamed"])
async def test_openrouters_cost_is_taken(provider, on_text):
    provider.script = [Says("hello", cost=0.25)]
    lm = client_of("openrouter", provider)
    assert (await lm.complete(QUESTION, on_text=on_text)).usage.cost == 0.25
    await lm.close()


@pytest.mark.parametrize("on_text", [None, [].append], ids=["whole", "streamed"])
async def test_anthropics_cache_is_charged_by_its_own_prices(provider, on_text):
    provider.script = [Says("hello", usage=(1_000, 100), cached=400, written=200)]
    prices = {"input": 3, "output": 15, "cached": 0.3, "cache_write": 3.75}
    lm = client_of("anthropic", provider, prices=prices)
    reply = await lm.complete(QUESTION, on_text=on_text)
    assert reply.usage.cost == pytest.approx((400 * 3 + 400 * 0.3 + 200 * 3.75 + 100 * 15) / 1e6)
    await lm.close()


def test_the_table_agrees_with_that_arithmetic():
    tokens = Tokens(input=1_000, output=100, cached=400, written=200)
    table = Pricing(provider={"provider_api_url": "https://api.anthropic.com"})
    own = Prices.of({"input": 3, "output": 15, "cached": 0.3, "cache_write": 3.75})
    assert table.cost(tokens, None, ["claude-sonnet-4-20250514"]) == pytest.approx(own.cost(tokens))


def test_the_table_is_part_of_its_package_and_not_fetched():
    code = """
import socket
def refuse(*_): raise AssertionError("a socket was opened")
socket.socket.connect = socket.getaddrinfo = refuse
from rlm_kernel.clients.pricing import Pricing, Tokens
print(Pricing(provider={"provider_api_url": "https://api.openai.com/v1"}).cost(Tokens(10, 10), None, ["gpt-5"]))
"""
    assert float(subprocess.check_output([sys.executable, "-c", code], text=True)) > 0
