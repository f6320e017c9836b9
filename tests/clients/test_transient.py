"""Transient errors in responses of status 200 are retried as the statuses are."""

from __future__ import annotations

import json
from itertools import product

import pytest
from loopback import API_KEY, MODEL, Fails, LoopbackProvider, Sends
from remote_clients import anthropic_lm, openai_lm

from rlm_kernel.clients.transient import error_in
from rlm_kernel.errors import LMError

CLIENTS = {"openai": openai_lm, "anthropic": anthropic_lm}
QUESTION = [{"role": "user", "content": "Which?"}]
BUSY = {
    "openai": {"error": {"message": "Overloaded", "code": 503}},
    "anthropic": {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
}
PIECE = {
    "openai": {"choices": [{"index": 0, "delta": {"content": "It is "}}]},
    "anthropic": {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "It is "}},
}


@pytest.fixture(scope="module")
def server():
    with LoopbackProvider() as loopback:
        yield loopback


@pytest.fixture
async def client(server, monkeypatch):
    monkeypatch.setattr("rlm_kernel.clients.remote.wait_seconds", lambda _: 0)
    made = []

    def make(api, *script, **options):
        server.script = script
        server.requests.clear()
        made.append(CLIENTS[api](MODEL, API_KEY, server.base_url, backend=api, timeout=20, **options))
        return made[-1]

    yield make
    for lm in made:
        await lm.close()


def events(*data):
    lines = (
        f"event: {one['type']}\ndata: {json.dumps(one)}" if "type" in one else f"data: {json.dumps(one)}"
        for one in data
    )
    text = "".join(f"{line}\n\n" for line in lines)
    return Sends(text.encode(), content_type="text/event-stream")


def whole(body):
    return Sends(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("api", "way"),
    [*product(CLIENTS, ("whole", "streamed")), ("openai", "whole instead of a stream")],
)
async def test_it_is_retried(client, server, api, way):
    sends = events(BUSY[api]) if way == "streamed" else whole(BUSY[api])
    heard = []
    lm = client(api, sends, sends, "42")
    reply = await lm.complete(QUESTION, on_text=None if way == "whole" else heard.append)
    assert (reply.text, len(server.requests)) == ("42", 3)


@pytest.mark.parametrize("api", CLIENTS)
async def test_after_the_last_retry_the_error_has_the_words_of_the_provider_and_no_wrong_advice(client, server, api):
    with pytest.raises(LMError, match=r"Overloaded\. .*\(1 retries\)") as caught:
        await client(api, *[whole(BUSY[api])] * 3, max_retries=1).complete(QUESTION)
    assert "base_url" not in str(caught.value)
    assert len(server.requests) == 2


@pytest.mark.parametrize("api", CLIENTS)
async def test_it_is_not_retried_after_text_that_was_passed_on(client, server, api):
    heard = []
    with pytest.raises(LMError, match="Overloaded") as caught:
        await client(api, events(PIECE[api], BUSY[api]), "42").complete(QUESTION, on_text=heard.append)
    assert (caught.value.partial_answer, heard, len(server.requests)) == ("It is ", ["It is "], 1)


async def test_it_is_retried_within_a_choice(client):
    choice = {"message": {"content": ""}, "finish_reason": "error", "error": {"code": 502, "message": "Upstream"}}
    assert (await client("openai", whole({"choices": [choice]}), "42").complete(QUESTION)).text == "42"


async def test_it_is_retried_with_the_responses_api(client, server):
    failed = {"object": "response", "status": "failed", "error": {"code": "server_error", "message": "Sorry"}}
    lm = client("openai", Fails(400, "only supported in v1/responses"), whole(failed), "42")
    assert (await lm.complete(QUESTION)).text == "42"
    assert len(server.requests) == 3


async def test_another_error_is_not_retried(client, server):
    with pytest.raises(LMError, match="No such model"):
        await client("openai", whole({"error": {"message": "No such model", "code": 404}}), "42").complete(QUESTION)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"error": "Model is overloaded", "error_type": "overloaded"},
        {"error": {"message": "Rate limit reached", "type": "requests"}},
        {"error": {"message": "Slow down", "code": "429"}},
        {"error": {"message": "Upstream request timeout"}},
        {"object": "error", "message": "Busy", "code": 500},
        {"detail": "Please try again later"},
        "Request timed out",
    ],
)
def test_errors_that_pass_are_known(body):
    assert error_in(body) is not None


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Your key is wrong. Try again with another one.", "code": 401}},
        {"error": {"message": "The prompt is too long", "code": "context_length_exceeded"}},
        {"error": None},
        {"error": [1]},
        {"code": True},
        None,
        [],
    ],
)
def test_other_errors_are_not(body):
    assert error_in(body) is None
