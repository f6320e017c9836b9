"""The `portkey` backend: what reaches the gateway. Its real gateway is asked in tests/local_lm."""

from __future__ import annotations

import pytest
from backends_on_loopback import KEY, client_of, marks
from loopback import Fails, Says
from remote_clients import portkey_lm

QUESTION = [{"role": "user", "content": "Who are you?"}]

pytestmark = marks("portkey")


@pytest.fixture
async def client(provider):
    made = []

    def make(script=(), **given):
        provider.script = script
        made.append(client_of("portkey", provider, **given))
        return made[-1]

    yield make
    for lm in made:
        await lm.close()


async def test_the_name_of_the_model_goes_through_unchanged(client, provider):
    await client(["hello"], model_name="@openai/gpt-5-nano").complete(QUESTION)
    assert provider.requests[0].body["model"] == "@openai/gpt-5-nano"


async def test_the_documented_arguments_become_headers(client, provider):
    given = {
        "provider": "openai",
        "virtual_key": "vk-1",
        "custom_host": "http://10.0.0.1/v1",
        "Authorization": "upstream",
    }
    await client(["hello"], config="pc-1", **given).complete(QUESTION)
    headers = provider.requests[0].headers
    expected = {
        "api-key": KEY,
        "provider": "openai",
        "virtual-key": "vk-1",
        "custom-host": "http://10.0.0.1/v1",
        "config": "pc-1",
    }
    assert {name: headers[f"x-portkey-{name}"] for name in expected} == expected
    assert headers["authorization"] == "Bearer upstream"


async def test_the_gateway_is_not_asked_to_retry_as_well(client, provider):
    await client(["hello"], max_retries=4).complete(QUESTION)
    assert "x-portkey-config" not in provider.requests[0].headers


async def test_a_gateway_that_cannot_answer_is_asked_again_by_the_sdk(client, provider):
    assert (await client([Fails(503, "Starting", retry_after=0.01), "hello"]).complete(QUESTION)).text == "hello"


NAMED = [
    ({"model_name": "@openai/gpt-5-nano"}, 0.000_45),
    ({"model_name": "gpt-5-nano", "provider": "openai"}, 0.000_45),
    ({"model_name": "@my-keys/gpt-5-nano"}, None),
    ({"model_name": "gpt-5-nano"}, None),
    ({"model_name": "@openai/gpt-5-nano", "custom_host": "http://10.0.0.1/v1"}, None),
]


@pytest.mark.parametrize(("given", "cost"), NAMED, ids=str)
async def test_the_price_table_is_asked_where_the_provider_is_named(client, given, cost):
    reply = await client([Says("hello", usage=(1_000, 1_000))], **given).complete(QUESTION)
    assert reply.usage.cost == (None if cost is None else pytest.approx(cost))


def test_the_repr_shows_no_key():
    lm = portkey_lm("@openai/gpt-5", KEY, Authorization="Bearer upstream-secret", virtual_key="virtual-secret")
    assert repr(lm) == "RemoteLM('@openai/gpt-5', backend='openai', base_url='https://api.portkey.ai/v1')"
    assert lm.adapter.redact(f"{KEY} upstream-secret virtual-secret") == "[api key] [api key] [api key]"
