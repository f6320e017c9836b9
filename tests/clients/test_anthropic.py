"""The `anthropic` backend against a provider on loopback: what it sends, how it reads replies, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import traceback

import anthropic
import pytest
from loopback import API_KEY, MODEL, Fails, Hangs, Says, Sends
from remote_clients import anthropic_lm

from rlm_kernel.clients.anthropic import MAX_REPLY_TOKENS, AnthropicAdapter
from rlm_kernel.clients.provider_errors import NEXT_STEPS, lm_errors
from rlm_kernel.errors import ConfigError, LMError
from rlm_kernel.types import Reply, Usage

QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]
CACHED = {"cache_control": {"type": "ephemeral"}}


@pytest.fixture
async def client(provider):
    made = []

    def make(script=None, **options):
        if script is not None:
            provider.script = script
        given = {"backend": "anthropic", "key_variable": "ANTHROPIC_API_KEY", "timeout": 20, **options}
        made.append(anthropic_lm(**{**provider.backend_kwargs, **given}))
        return made[-1]

    yield make
    for lm in made:
        await lm.close()


@pytest.fixture(params=["whole", "streamed"])
def on_text(request):
    return None if request.param == "whole" else [].append


async def fail(lm, on_text=None) -> LMError:
    with pytest.raises(LMError) as caught:
        await lm.complete(QUESTION, on_text=on_text)
    return caught.value


def said(text):
    return {"type": "text", "text": text}


# Replies


async def test_a_reply_carries_text_model_usage_and_reason(client, on_text):
    lm = client([Says("I am a test.", usage=(12, 4), cached=8, written=2, model="claude-2")])
    reply = await lm.complete(QUESTION, on_text=on_text)
    assert reply == Reply("I am a test.", "claude-2", Usage(12, 4, 8, None), "stop")


async def test_a_stream_hands_over_the_pieces_in_order(client):
    pieces = []
    await client(["one two three"]).complete(QUESTION, on_text=pieces.append)
    assert pieces == ["one ", "two ", "three"]


@pytest.mark.parametrize(
    ("reason", "ours"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "refusal"),
        ("pause_turn", "error"),
    ],
)
async def test_the_reason_of_the_end_is_told_in_our_words(client, on_text, reason, ours):
    reply = await client([Says("I am", finish_reason=reason)]).complete(QUESTION, on_text=on_text)
    assert reply.finish_reason == ours


async def test_thinking_is_no_part_of_the_text(client, on_text):
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    hidden = {"type": "redacted_thinking", "data": "x"}
    lm = client([Says("It is 42.", blocks=(thinking, hidden))])
    assert (await lm.complete(QUESTION, on_text=on_text)).text == "It is 42."


async def test_several_texts_are_one(client, on_text):
    lm = client([Says("two", blocks=(said("one "),))])
    assert (await lm.complete(QUESTION, on_text=on_text)).text == "one two"


async def test_a_model_that_spent_its_limit_on_thinking_gives_an_empty_reply(client, on_text):
    reply = await client([Says(None, finish_reason="length")]).complete(QUESTION, on_text=on_text)
    assert (reply.text, reply.finish_reason) == ("", "length")


async def test_a_missing_usage_is_no_error(client, on_text):
    reply = await client([Says("hello", usage=None)]).complete(QUESTION, on_text=on_text)
    assert (reply.text, reply.usage) == ("hello", Usage())


async def test_the_input_of_a_stream_that_is_told_again_at_its_end_counts_once(client):
    events = [
        {"type": "message_start", "message": {"type": "message", "content": [], "usage": {"input_tokens": 5}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"input_tokens": 2, "cache_read_input_tokens": 3, "output_tokens": 4},
        },
    ]
    payload = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
    lm = client([Sends(payload, content_type="text/event-stream")])
    assert (await lm.complete(QUESTION, on_text=[].append)).usage == Usage(5, 4, 3)


# Requests


async def test_system_is_a_parameter_and_the_limit_is_said(client, provider):
    await client(["hello"]).complete(QUESTION)
    [request] = provider.requests
    assert request.path == "/v1/messages"
    assert request.body == {
        "model": MODEL,
        "system": [said("Be brief.") | CACHED],
        "messages": [{"role": "user", "content": [said("Who are you?") | CACHED]}],
        "max_tokens": MAX_REPLY_TOKENS,
    }
    assert API_KEY in (request.headers.get("x-api-key") or request.headers["authorization"])


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
async def test_the_base_url_may_end_in_v1_or_not(client, provider, path):
    url = provider.base_url.removesuffix("/v1") + path
    assert (await client(["hello"], base_url=url).complete(QUESTION)).text == "hello"


async def test_neighbours_of_one_role_become_one_turn(client, provider):
    roles = ["system", "user", "user", "assistant", "system", "assistant", "user"]
    await client(["hello"]).complete([{"role": role, "content": f"{n}"} for n, role in enumerate(roles)])
    body = provider.requests[0].body
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert [[block["text"] for block in turn["content"]] for turn in body["messages"]] == [
        ["1", "2"],
        ["3", "5"],
        ["6"],
    ]
    assert body["system"][0]["text"] == "0\n\n4"


async def test_no_text_is_empty(client, provider):
    empty = [{"role": "system", "content": ""}, {"role": "user", "content": " \n"}]
    await client(["hello"]).complete(empty)
    body = provider.requests[0].body
    assert "system" not in body
    assert body["messages"][0]["content"][0]["text"] == "(empty)"


async def test_a_growing_conversation_marks_its_end_for_the_cache(client, provider):
    turns = [*QUESTION, {"role": "assistant", "content": "A test."}, {"role": "user", "content": "What test?"}]
    await client(["hello"]).complete(turns)
    marked = [
        [CACHED.items() <= block.items() for block in turn["content"]] for turn in provider.requests[0].body["messages"]
    ]
    assert marked == [[False], [False], [True]]


async def test_a_question_that_stands_alone_is_not_written_to_the_cache(client, provider):
    await client(["hello"]).complete([{"role": "user", "content": "Who are you?"}])
    assert "cache_control" not in json.dumps(provider.requests[0].body)


async def test_the_messages_of_the_caller_are_not_changed(client):
    question = [dict(message) for message in QUESTION]
    await client(["hello"]).complete(question)
    assert question == QUESTION


@pytest.mark.parametrize(("own", "asked", "sent"), [(None, 7, 7), (7, None, 7), (7, 9, 7), (9, 7, 9)])
async def test_the_users_length_limit_stands_above_the_calls(client, provider, own, asked, sent):
    await client(["hello"], max_tokens=own).complete(QUESTION, max_tokens=asked)
    assert provider.requests[0].body["max_tokens"] == sent


async def test_sampling_args_reach_the_body(client, provider):
    await client(["hello"], sampling_args={"temperature": 0, "thinking": {"type": "adaptive"}}).complete(QUESTION)
    body = provider.requests[0].body
    assert (body["temperature"], body["thinking"]) == (0, {"type": "adaptive"})


@pytest.mark.parametrize("name", ["stream", "model", "system"])
def test_sampling_args_may_not_set_what_has_its_own_place(name):
    with pytest.raises(ConfigError, match=f"may not hold {name}:"):
        anthropic_lm("claude", "key", sampling_args={name: 1})


async def test_lone_surrogates_are_replaced(client, provider, on_text):
    await client(["hello"]).complete([{"role": "user", "content": "lone \ud800"}], on_text=on_text)
    assert provider.requests[0].prompt == "lone \ufffd"


async def test_keys_and_headers_of_the_environment_are_not_sent(client, provider, monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, "another-key")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    await client(["hello"]).complete(QUESTION)
    assert "another-key" not in str(provider.requests[0].headers)


# Construction and closing


def test_importing_the_module_does_not_import_the_sdk():
    code = "import sys, rlm_kernel.clients.anthropic; sys.exit('anthropic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_repr_shows_no_key():
    lm = anthropic_lm("claude", "sk-ant-secret", "http://user:hidden@localhost:8000/v1")
    assert repr(lm) == "RemoteLM('claude', backend='openai', base_url='http://localhost:8000')"


async def test_cancelling_a_call_closes_its_request(client, provider, on_text):
    call = asyncio.create_task(client([Hangs()]).complete(QUESTION, on_text=on_text))
    await asyncio.to_thread(provider.wait_for_requests, 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.to_thread(provider.wait_for_disconnects)
    assert len(provider.requests) == 1


async def test_what_the_reader_of_a_stream_raises_comes_through_as_it_is(client):
    lm = client(["one two", "three"])
    with pytest.raises(json.JSONDecodeError):
        await lm.complete(QUESTION, on_text=json.loads)
    assert (await lm.complete(QUESTION)).text == "three"


# Retries and errors


async def test_the_sdk_asks_again_and_nobody_else(client, provider, on_text):
    busy = Fails(429, "Slow down", retry_after=0.01)
    reply = await client([busy, Fails(529, "Overloaded", retry_after=0.01), "hello"]).complete(
        QUESTION, on_text=on_text
    )
    assert (reply.text, len(provider.requests)) == ("hello", 3)


REFUSALS = {
    "401": (Fails(401, "invalid x-api-key", type="authentication_error"), "ANTHROPIC_API_KEY"),
    "402": (Fails(402, "Payment required", type="billing_error"), "no credit or quota left"),
    "403": (Fails(403, "No access", type="permission_error"), "ask for access to 'loopback-model'"),
    "404": (Fails(404, "model: nothing", type="not_found_error"), "Check model_name ('loopback-model') and base_url"),
    "400": (Fails(400, "max_tokens: too many", type="invalid_request_error"), "sampling_args"),
    "400 credit": (Fails(400, "Your credit balance is too low to access the API."), "no credit or quota left"),
    "413": (Fails(413, "Request exceeds the maximum size", type="request_too_large"), "see its message"),
    "429": (Fails(429, "Rate limited", type="rate_limit_error"), "Too many calls or tokens at a time (0 retries)"),
    "500": (Fails(500, "Internal server error"), "in trouble"),
    "529": (Fails(529, "Overloaded", type="overloaded_error"), "in trouble"),
    "overflow": (Fails(400, "prompt is too long: 210000 tokens > 200000 maximum"), "context window"),
    "overflow with reply": (
        Fails(400, "input length and `max_tokens` exceed context limit: 199000 + 8192 > 200000"),
        "context window",
    ),
}


@pytest.mark.parametrize(("step", "next_step"), REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_names_backend_model_status_and_next_step(client, on_text, step, next_step):
    error = await fail(client([step], max_retries=0), on_text)
    assert (error.backend, error.model, error.status) == ("anthropic", MODEL, step.status)
    assert error.request_id == "req_loopback"
    assert f"(HTTP {step.status}): {step.message.rstrip('.')}." in str(error)
    assert next_step in str(error)
    assert isinstance(error.__cause__, anthropic.APIStatusError)


async def test_a_limit_of_ours_that_is_too_large_is_lowered_from_then_on(client, provider):
    words = "max_tokens: 16384 > 8192, which is the maximum allowed number of output tokens for this model"
    lm = client(lambda request: Fails(400, words) if request.body["max_tokens"] > 8_192 else "hello")
    for _ in range(2):
        assert (await lm.complete(QUESTION, max_tokens=16_384)).text == "hello"
    assert [request.body["max_tokens"] for request in provider.requests] == [16_384, 8_192, 8_192]


async def test_an_error_in_the_middle_of_a_stream_is_quoted(client):
    payload = (
        b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n'
    )
    error = await fail(client([Sends(payload, content_type="text/event-stream")], max_retries=0), [].append)
    assert "Overloaded" in str(error)


async def test_a_connection_closed_in_the_middle_is_an_error(client, on_text):
    error = await fail(client([Says("one two three", breaks_after=2)], max_retries=0), on_text)
    assert "The reply broke off" in str(error)


async def test_a_stream_that_ends_too_early_is_an_error(client):
    payload = (
        b'event: message_start\ndata: {"type": "message_start", "message": {"type": "message", "content": []}}\n\n'
    )
    error = await fail(client([Sends(payload, content_type="text/event-stream")]), [].append)
    assert "ended before the reply did" in str(error)


async def test_a_timeout_names_the_seconds(client, on_text):
    error = await fail(client([Hangs()], timeout=0.2, max_retries=0), on_text)
    assert "within 0.2 s (0 retries): raise timeout" in str(error)


NO_MESSAGES = {
    "malformed": Sends(b'{"content": [{"te'),
    "not UTF-8": Sends(b'{"content": "\xff"}'),
    "a web page": Sends(b"<html>Welcome</html>", content_type="text/html"),
    "empty": Sends(b""),
    "a chat completion": Sends(b'{"choices": [{"message": {"content": "hello"}}]}'),
    "a list": Sends(b"[]"),
    "null": Sends(b"null"),
}


@pytest.mark.parametrize("step", NO_MESSAGES.values(), ids=NO_MESSAGES)
async def test_what_is_no_message_points_at_the_base_url(client, provider, on_text, step):
    error = await fail(client([step]), on_text)
    assert f"Does {provider.base_url.removesuffix('/v1')} speak the Anthropic API?" in str(error)
    assert "before /v1/messages" in str(error)


@pytest.mark.parametrize("content", ["null", "[]", '[{"type": "text"}]', "[null]"])
async def test_a_message_without_text_is_an_empty_reply(client, content):
    reply = await client([Sends(b'{"type": "message", "content": %s}' % content.encode())]).complete(QUESTION)
    assert (reply.text, reply.finish_reason) == ("", "stop")


async def test_a_key_that_the_provider_repeats_is_in_no_traceback(client):
    error = await fail(client([Fails(401, f"invalid key: {API_KEY}")]))
    assert "invalid key: [api key]" in str(error)
    assert API_KEY not in "".join(traceback.format_exception(error))


def everything_below(base):
    return {base}.union(*map(everything_below, base.__subclasses__()))


FOREIGN = sorted({anthropic.AnthropicError, *everything_below(anthropic.APIError)}, key=str)


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: kind.__name__)
def test_every_error_of_the_sdk_becomes_an_lm_error(kind):
    error = kind.__new__(kind)
    adapter = AnthropicAdapter("claude", "key", "http://localhost", backend="anthropic")
    with pytest.raises(LMError) as caught, lm_errors(adapter):
        raise error
    assert caught.value.__cause__ is error
    assert "{" not in str(caught.value)


def test_the_errors_of_the_sdk_have_next_steps_of_their_own_or_share_one():
    classes = {kind.__name__ for kind in anthropic.APIStatusError.__subclasses__()}
    assert {
        "AuthenticationError",
        "NotFoundError",
        "RateLimitError",
        "InternalServerError",
    } <= classes & NEXT_STEPS.keys()
