"""What holds for every backend, each against the loopback provider in its own wire format."""

from __future__ import annotations

import asyncio

import pytest
from backends_on_loopback import KEY, MODELS, client_of, closed, each_backend
from loopback import MODEL, Fails, Hangs, Says

from rlm_kernel.errors import LMError
from rlm_kernel.types import Usage

QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]
PRICES = {"input": 10, "output": 100, "cached": 1}

pytestmark = pytest.mark.parametrize("backend", each_backend())


@pytest.fixture
async def client(backend, provider):
    made = []

    def make(script, **given):
        provider.script = script
        made.append(client_of(backend, provider, **given))
        return made[-1]

    yield make
    for lm in made:
        await closed(lm)


@pytest.fixture(params=["whole", "streamed"])
def on_text(request):
    return None if request.param == "whole" else [].append


async def test_a_reply_carries_text_model_usage_and_reason(client, on_text, backend):
    lm = client([Says("I am a test.", usage=(12, 4), cached=8)])
    reply = await lm.complete(QUESTION, on_text=on_text)
    assert (reply.text, reply.finish_reason) == ("I am a test.", "stop")
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.cached_tokens) == (12, 4, 8)
    assert MODEL in reply.model
    assert (lm.backend, lm.model) == (backend, MODELS.get(backend, MODEL))


async def test_the_text_is_streamed_in_order(client):
    pieces = []
    await client(["one two three"]).complete(QUESTION, on_text=pieces.append)
    assert [piece for piece in pieces if piece] == ["one ", "two ", "three"]


async def test_the_conversation_and_the_key_reach_the_provider(client, provider):
    await client(["hello"]).complete(QUESTION)
    [request] = provider.requests
    assert request.prompt == "Who are you?"
    assert "Be brief." in str(request.body)
    assert KEY in str(request.headers)


async def test_sampling_args_and_the_length_limit_reach_the_provider(client, provider):
    await client(["hello"], max_tokens=7, sampling_args={"temperature": 0.5}).complete(QUESTION, max_tokens=9)
    assert (provider.requests[0].body["max_tokens"], provider.requests[0].body["temperature"]) == (7, 0.5)


async def test_a_reply_cut_by_the_limit_says_so(client, on_text):
    reply = await client([Says("I am", finish_reason="length")]).complete(QUESTION, on_text=on_text)
    assert (reply.text, reply.finish_reason) == ("I am", "length")


async def test_the_users_prices_make_the_cost(client, on_text):
    lm = client([Says("hello", usage=(1_000, 100), cached=400)], prices=PRICES)
    reply = await lm.complete(QUESTION, on_text=on_text)
    assert reply.usage.cost == pytest.approx((600 * 10 + 400 * 1 + 100 * 100) / 1e6)


async def test_without_usage_the_cost_is_unknown_whatever_the_prices(client, backend):
    if backend == "litellm":
        pytest.skip("litellm counts the tokens itself when the provider does not")
    reply = await client([Says("hello", usage=None)], prices=PRICES).complete(QUESTION)
    assert reply.usage == Usage()


async def test_an_unknown_cost_is_none_and_a_server_of_ones_own_is_free(client, on_text, backend):
    reply = await client(["hello"]).complete(QUESTION, on_text=on_text)
    assert reply.usage.cost == (0.0 if backend in {"vllm", "ollama"} else None)


async def test_the_sdk_waits_as_told_and_asks_again(client, provider, on_text):
    busy = Fails(429, "Slow down", retry_after=0.01)
    reply = await client([busy, busy, "hello"], max_retries=2).complete(QUESTION, on_text=on_text)
    assert (reply.text, len(provider.requests)) == ("hello", 3)


async def test_there_are_no_more_retries_than_asked_for(client, provider, on_text, backend):
    lm = client(lambda _: Fails(429, "Slow down", retry_after=0.01), max_retries=1)
    with pytest.raises(LMError) as caught:
        await lm.complete(QUESTION, on_text=on_text)
    assert (caught.value.backend, caught.value.status) == (backend, 429)
    assert "Too many calls" in str(caught.value)
    assert len(provider.requests) == 2


async def test_the_timeout_ends_a_call(client, on_text):
    with pytest.raises(LMError, match="raise timeout"):
        await client([Hangs()], timeout=0.3, max_retries=0).complete(QUESTION, on_text=on_text)


FAULTS = {
    "401": (Fails(401, "Wrong key"), "Check the key"),
    "404": (Fails(404, "No such model"), "Check model_name"),
    "500": (Fails(500, "Oh no"), "in trouble"),
    "overflow": (Fails(400, "the prompt is too long: it exceeds the context window"), "larger window"),
    "break": (Says("one two three", breaks_after=1), ""),
}


@pytest.mark.parametrize(("step", "words"), FAULTS.values(), ids=FAULTS)
async def test_a_fault_is_one_error_with_a_next_step(client, on_text, backend, step, words):
    with pytest.raises(LMError) as caught:
        await client([step], max_retries=0).complete(QUESTION, on_text=on_text)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{backend}, model ")


async def test_a_refused_key_names_its_variable_where_there_is_one(client, backend):
    with pytest.raises(LMError) as caught:
        await client([Fails(401, "Wrong key")]).complete(QUESTION)
    assert ("variable" in str(caught.value)) is (backend != "ollama")
    assert "api_key in backend_kwargs" in str(caught.value)


async def test_cancelling_closes_the_request(client, provider, on_text):
    call = asyncio.create_task(client([Hangs()]).complete(QUESTION, on_text=on_text))
    await asyncio.to_thread(provider.wait_for_requests, 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.to_thread(provider.wait_for_disconnects)


async def test_many_calls_at_a_time_keep_their_own_usage(client):
    lm = client(lambda request: Says("It is so.", usage=(int(request.prompt), 1)))
    replies = await asyncio.gather(*(lm.complete([{"role": "user", "content": str(n)}]) for n in range(1, 20)))
    assert [reply.usage.input_tokens for reply in replies] == list(range(1, 20))


async def test_closing_twice_is_fine_and_a_later_call_connects_again(client):
    lm = client(lambda _: "hello")
    for _ in range(2):
        assert (await lm.complete(QUESTION)).text == "hello"
        await lm.close()
        await lm.close()
