"""The `openai` backend against a provider on loopback: replies, streams, and everything that can go wrong."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import traceback
from contextlib import ExitStack

import openai
import pytest
from loopback import API_KEY, Fails, Hangs, LoopbackProvider, Says, Sends
from pydantic_core import to_json
from remote_clients import openai_lm

from rlm_kernel.clients.openai import OpenAIAdapter
from rlm_kernel.clients.provider_errors import NEXT_STEPS, lm_errors
from rlm_kernel.errors import ConfigError, LMError
from rlm_kernel.types import Reply, Usage

QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]


@pytest.fixture
async def client(provider):
    made = []

    def make(script=None, **options):
        if script is not None:
            provider.script = script
        made.append(openai_lm(**{**provider.backend_kwargs, "timeout": 20, **options}))
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


# Replies


async def test_a_reply_carries_text_model_usage_and_reason(client, on_text):
    lm = client([Says("I am a test.", usage=(12, 4), cached=8, cost=0.25, model="loopback-2")])
    reply = await lm.complete(QUESTION, on_text=on_text)
    assert reply == Reply("I am a test.", "loopback-2", Usage(12, 4, 8, 0.25), "stop")


async def test_a_stream_hands_over_the_pieces_in_order(client):
    pieces = []
    await client(["one two three"]).complete(QUESTION, on_text=pieces.append)
    assert pieces == ["one ", "two ", "three"]


async def test_a_cost_that_the_provider_does_not_report_is_unknown(client, on_text):
    reply = await client(["hello"]).complete(QUESTION, on_text=on_text)
    assert reply.usage.cost is None


async def test_a_missing_usage_is_no_error(client, on_text):
    reply = await client([Says("hello", usage=None)]).complete(QUESTION, on_text=on_text)
    assert (reply.text, reply.usage) == ("hello", Usage())


async def test_a_reply_cut_by_the_limit_says_so(client, on_text):
    reply = await client([Says("I am", finish_reason="length")]).complete(QUESTION, on_text=on_text)
    assert (reply.text, reply.finish_reason) == ("I am", "length")


async def test_a_model_that_spent_its_limit_on_thinking_gives_an_empty_reply(client, on_text):
    reply = await client([Says(None, finish_reason="length")]).complete(QUESTION, on_text=on_text)
    assert (reply.text, reply.finish_reason) == ("", "length")


async def test_a_refusal_is_the_text(client, on_text):
    reply = await client([Says(None, fields={"refusal": "No."})]).complete(QUESTION, on_text=on_text)
    assert reply.text == "No."


async def test_an_empty_reply_is_a_reply(client, on_text):
    reply = await client([""]).complete(QUESTION, on_text=on_text)
    assert reply.text == ""


async def test_a_hundred_calls_at_a_time_keep_their_own_usage(client, provider):
    def script(request):
        number = int(request.prompt)
        return Says(f"It is {number}.", usage=(number, number + 1))

    lm = client(script)

    async def ask(number):
        question = [{"role": "user", "content": str(number)}]
        return await lm.complete(question, on_text=[].append if number % 2 else None)

    replies = await asyncio.gather(*map(ask, range(100)))
    assert [r.text for r in replies] == [f"It is {n}." for n in range(100)]
    assert [r.usage for r in replies] == [Usage(n, n + 1) for n in range(100)]
    assert len(provider.requests) == 100


# Requests


async def test_the_conversation_the_model_and_the_key_are_sent(client, provider):
    await client(["hello"]).complete(QUESTION)
    [request] = provider.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {API_KEY}"
    assert request.body == {"model": "loopback-model", "messages": QUESTION}


async def test_sampling_args_reach_the_body_and_win_over_the_extra_body(client, provider):
    lm = client(["hello"], sampling_args={"temperature": 0, "top_k": 5}, extra_body={"top_k": 1, "slot": 2})
    await lm.complete(QUESTION)
    body = provider.requests[0].body
    assert (body["temperature"], body["top_k"], body["slot"]) == (0, 5, 2)


@pytest.mark.parametrize(("own", "asked", "sent"), [(None, 7, 7), (7, None, 7), (7, 9, 7), (9, 7, 9)])
async def test_the_users_length_limit_stands_above_the_calls(client, provider, own, asked, sent):
    await client(["hello"], max_tokens=own).complete(QUESTION, max_tokens=asked)
    assert provider.requests[0].body["max_tokens"] == sent


@pytest.mark.parametrize("base_url", [None, "https://api.openai.com/v1", "https://eu.api.openai.com/v1"])
def test_openai_itself_is_told_the_limit_under_its_new_name(base_url):
    request = openai_lm("gpt-5", "key", base_url).adapter.build_request(QUESTION, 5)
    assert request["max_completion_tokens"] == 5
    assert "max_tokens" not in request


def like_azure(request):
    if "max_tokens" in request.body:
        return Fails(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    return "hello"


async def test_a_server_that_wants_the_new_name_for_the_limit_is_told_it_from_then_on(client, provider, on_text):
    lm = client(like_azure)
    for _ in range(2):
        assert (await lm.complete(QUESTION, max_tokens=5, on_text=on_text)).text == "hello"
    limits = [(r.body.get("max_tokens"), r.body.get("max_completion_tokens")) for r in provider.requests]
    assert limits == [(5, None), (None, 5), (None, 5)]


async def test_a_limit_that_is_too_large_under_either_name_is_not_renamed(client, provider):
    lm = client([Fails(400, "'max_tokens' or 'max_completion_tokens' is too large: 9.")], max_tokens=9)
    assert "too large: 9" in str(await fail(lm))
    assert len(provider.requests) == 1


TOO_LARGE = {
    "openai": ("max_tokens is too large: 16384. This model supports at most 4096 completion tokens.", 4_096),
    "groq": ("`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens`", 8_192),
    "deepseek": ("Invalid max_tokens value, the valid range of max_tokens is [1, 8,192]", 8_192),
    "vllm": (
        "'max_tokens' is too large: 16384. This model's maximum context length is 9000 tokens (16384 > 9000 - 500).",
        None,
    ),
    "older vllm": (
        "maximum context length is 9000 tokens. You requested 16896 (512 in the messages, 16384 in the completion).",
        None,
    ),
    "no number": ("max_tokens is too large", None),
}


@pytest.mark.parametrize(("words", "allowed"), TOO_LARGE.values(), ids=TOO_LARGE)
async def test_a_limit_of_ours_that_is_refused_as_too_large_is_lowered_or_left_out_from_then_on(
    client, provider, on_text, words, allowed
):
    lm = client(lambda request: Fails(400, words) if request.body.get("max_tokens") == 16_384 else "hello")
    for _ in range(2):
        assert (await lm.complete(QUESTION, max_tokens=16_384, on_text=on_text)).text == "hello"
    assert [request.body.get("max_tokens") for request in provider.requests] == [16_384, allowed, allowed]
    assert lm.reply_limit(16_384) == allowed
    assert lm.reply_limit(100) == (100 if allowed else None)


async def test_lone_surrogates_are_replaced_and_pairs_are_joined(client, provider, on_text):
    text = "lone \ud800, pair \ud83d\ude00, NUL \0, ünïcödé"
    reply = await client(["hello"]).complete([{"role": "user", "content": text}], on_text=on_text)
    assert reply.text == "hello"
    assert provider.requests[0].prompt == "lone \ufffd, pair \U0001f600, NUL \0, ünïcödé"


async def test_a_proxy_of_the_environment_is_not_asked_for_loopback(client, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert (await client(["hello"]).complete(QUESTION)).text == "hello"


# Construction and closing


def test_importing_the_module_does_not_import_the_sdk():
    code = "import sys, rlm_kernel.clients.openai; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("key", ["", "two words", "line\n", "pässwörd", "sk-\u2026"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(key):
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        openai_lm("gpt-5", key)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize("name", ["stream", "model", "n"])
def test_sampling_args_may_not_set_what_has_its_own_place(name):
    with pytest.raises(ConfigError, match=f"may not hold {name}:"):
        openai_lm("gpt-5", "key", sampling_args={name: 1})


def test_the_repr_shows_neither_key_nor_password():
    lm = openai_lm("gpt-5", "sk-secret", "http://user:hidden@localhost:8000/v1?token=hidden")
    assert repr(lm) == "RemoteLM('gpt-5', backend='openai', base_url='http://localhost:8000/v1')"


async def test_first_calls_at_the_same_time_share_one_client(client):
    lm = client(lambda _: "hello")
    connected = await asyncio.gather(*(lm._connection.client() for _ in range(5)))
    assert len(set(map(id, connected))) == 1


def test_another_event_loop_gets_connections_of_its_own(provider):
    provider.script = lambda _: "hello"
    code = f"""
import asyncio
from rlm_kernel.clients.openai import OpenAIAdapter
from rlm_kernel.clients.remote import RemoteLM
lm = RemoteLM(OpenAIAdapter(**{provider.backend_kwargs!r}))
for _ in range(3):
    print(asyncio.run(lm.complete({QUESTION!r})).text)
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["hello"] * 3


async def test_closing_twice_is_fine_and_a_later_call_connects_again(client):
    lm = client(lambda _: "hello")
    await lm.close()
    await lm.complete(QUESTION)
    await lm.close()
    await lm.close()
    assert (await lm.complete(QUESTION)).text == "hello"


async def test_cancelling_a_call_closes_its_request(client, provider, on_text):
    call = asyncio.create_task(client([Hangs()]).complete(QUESTION, on_text=on_text))
    await asyncio.to_thread(provider.wait_for_requests, 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.to_thread(provider.wait_for_disconnects)
    assert len(provider.requests) == 1


async def test_cancelling_in_the_middle_of_a_stream_closes_the_request(client, provider):
    begun = asyncio.Event()
    lm = client([Says("word " * 1000, delay=0.01)])
    call = asyncio.create_task(lm.complete(QUESTION, on_text=lambda _: begun.set()))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.to_thread(provider.wait_for_disconnects)


async def test_what_the_reader_of_a_stream_raises_comes_through_as_it_is(client):
    lm = client(["one two", "three"])
    with pytest.raises(json.JSONDecodeError):
        await lm.complete(QUESTION, on_text=json.loads)
    assert (await lm.complete(QUESTION)).text == "three"


# Retries


async def test_the_sdk_asks_again_and_nobody_else(client, provider, on_text):
    busy = Fails(429, "Slow down", retry_after=0.01)
    reply = await client([busy, busy, "hello"]).complete(QUESTION, on_text=on_text)
    assert (reply.text, len(provider.requests)) == ("hello", 3)


async def test_an_error_after_retries_says_how_many_there_were(client, provider):
    error = await fail(client(lambda _: Fails(429, "Slow down", retry_after=0.01), max_retries=1))
    assert "(1 retries)" in str(error)
    assert len(provider.requests) == 2


# Errors

OVERFLOWS = {
    "openai": Fails(400, "This model's maximum context length is 8 tokens.", "context_length_exceeded"),
    "vllm": Fails(400, "This model's maximum context length is 4096 tokens. However, you requested 9030."),
    "llama.cpp": Fails(400, "the request exceeds the available size", type="exceed_context_size_error"),
    "xai": Fails(400, "This model's maximum prompt length is 131072 but the request contains 537812 tokens."),
    "gemini": Fails(
        400, body=[{"error": {"message": "The input token count exceeds the maximum number of tokens allowed (9)."}}]
    ),
}

REFUSALS = {
    "401": (Fails(401, "Incorrect API key"), 401, "OPENAI_API_KEY"),
    "402": (Fails(402, "Insufficient credits"), 402, "no credit or quota left"),
    "403": (Fails(403, "No access"), 403, "ask for access to 'loopback-model'"),
    "404": (Fails(404, "The model does not exist"), 404, "Check model_name ('loopback-model') and base_url"),
    "400": (Fails(400, "Unsupported value: temperature"), 400, "sampling_args"),
    "409": (Fails(409, "Conflict"), 409, "see its message"),
    "413": (Fails(413, "Payload too large"), 413, "see its message"),
    "422": (Fails(422, body={"detail": "temperature: too hot"}), 422, "sampling_args"),
    "429": (Fails(429, "Rate limit reached"), 429, "Too many calls or tokens at a time (0 retries)"),
    "429 quota": (Fails(429, "Pay first", "insufficient_quota"), 429, "no credit or quota left"),
    "500": (Fails(500, "Oh no"), 500, "in trouble"),
    "503": (Fails(503, body="<html>Bad gateway</html>"), 503, "in trouble"),
    **{f"overflow {name}": (step, 400, "context window") for name, step in OVERFLOWS.items()},
}


@pytest.mark.parametrize(("step", "status", "next_step"), REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_names_backend_model_status_and_next_step(client, on_text, step, status, next_step):
    error = await fail(client([step], max_retries=0), on_text)
    assert (error.backend, error.model, error.status) == ("openai", "loopback-model", status)
    assert error.request_id == "req_loopback"
    assert next_step in str(error)
    assert (f"(HTTP {status}): {step.message}" in str(error)) is (step.body is None)
    assert isinstance(error.__cause__, openai.APIStatusError)


BODIES = {
    "detail": {"detail": "It is loading."},
    "error is a text": {"error": "It is loading."},
    "a list": [{"error": {"code": 400, "message": "It is loading."}}],
    "a text": "It is loading.",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_the_words_of_other_error_bodies_are_found(client, body):
    error = await fail(client([Fails(400, body=body)]))
    assert "(HTTP 400): It is loading. The request was refused" in str(error)


async def test_a_page_of_text_is_quoted(client):
    error = await fail(client([Sends(b"No upstream\n", status=502, content_type="text/plain")], max_retries=0))
    assert "(HTTP 502): No upstream. The provider is in trouble" in str(error)


async def test_a_long_error_page_is_cut(client):
    error = await fail(client([Sends(b"x" * 100_000, status=400, content_type="text/html")]))
    assert len(str(error)) < 1000


async def test_a_timeout_names_the_seconds(client, on_text):
    error = await fail(client([Hangs()], timeout=0.2, max_retries=0), on_text)
    assert "No answer within 0.2 s (0 retries): raise timeout" in str(error)
    assert error.status is None


async def test_a_refused_connection_asks_whether_the_server_runs(client, on_text):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        error = await fail(client(base_url=url, max_retries=0), on_text)
    assert f"Is the server at {url} running" in str(error)


async def test_a_connection_that_nobody_takes_asks_whether_the_server_runs(client, on_text):
    with socket.socket() as full, ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting.enter_context(other := socket.socket()).setblocking(False)
            other.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        error = await fail(client(base_url=url, max_retries=0, timeout=0.2), on_text)
    assert f"Is the server at {url} running" in str(error)


async def test_an_sdk_that_does_not_start_is_a_matter_of_configuration(client, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "nonsense://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"its SDK does not start: .*nonsense.*ALL_PROXY"):
        await client(base_url="http://models.example/v1").complete(QUESTION)


async def test_openai_itself_is_told_the_organisation_of_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    sdk = openai_lm("gpt-5", "key").adapter.open()
    assert (sdk.organization, sdk.project) == ("org-1", "proj-1")
    await sdk.close()


async def test_a_wrong_path_in_the_base_url_is_pointed_at(client, provider):
    error = await fail(client(["hello"], base_url=provider.base_url.removesuffix("/v1")))
    assert "usually ends in /v1" in str(error)


NO_COMPLETIONS = {
    "malformed": Sends(b'{"choices": [{"mess'),
    "not UTF-8": Sends(b'{"choices": "\xff"}'),
    "a web page": Sends(b"<html>Welcome</html>", content_type="text/html"),
    "empty": Sends(b""),
    "no choices": Sends(b'{"id": "1", "model": "m"}'),
    "choices are a text": Sends(b'{"choices": "none"}'),
    "a list": Sends(b"[]"),
    "null": Sends(b"null"),
}


@pytest.mark.parametrize("step", NO_COMPLETIONS.values(), ids=NO_COMPLETIONS)
async def test_what_is_no_chat_completion_points_at_the_base_url(client, provider, step):
    error = await fail(client([step]))
    assert f"Does {provider.base_url} speak the OpenAI API?" in str(error)


@pytest.mark.parametrize("step", NO_COMPLETIONS.values(), ids=NO_COMPLETIONS)
async def test_what_is_no_stream_is_an_error_too(client, provider, step):
    error = await fail(client([step]), [].append)
    assert f"Does {provider.base_url} speak the OpenAI API?" in str(error)


async def test_an_error_that_comes_with_status_200_is_quoted(client):
    error = await fail(client([Sends(b'{"error": {"message": "No provider is up", "code": 502}}')], max_retries=0))
    assert "No provider is up" in str(error)


@pytest.mark.parametrize("choice", [b"", b"null", b'{"message": null}', b'{"message": {"content": null}}'])
async def test_a_choice_without_text_is_an_empty_reply(client, choice):
    reply = await client([Sends(b'{"choices": [%s]}' % choice)]).complete(QUESTION)
    assert (reply.text, reply.finish_reason) == ("", "stop")


async def test_a_reply_that_a_filter_withheld_says_so(client, on_text):
    reply = await client([Says(None, finish_reason="content_filter")]).complete(QUESTION, on_text=on_text)
    assert (reply.text, reply.finish_reason) == ("", "content_filter")


async def test_a_connection_closed_in_the_middle_of_a_reply_is_an_error(client):
    error = await fail(client([Says("one two three", breaks_after=20)], max_retries=0))
    assert "The reply broke off" in str(error)


async def test_a_connection_closed_in_the_middle_of_a_stream_is_an_error(client, provider):
    pieces = []
    error = await fail(client([Says("one two three", breaks_after=2)]), pieces.append)
    assert "The reply broke off" in str(error)
    assert pieces == ["one ", "two "]
    assert len(provider.requests) == 1


STREAMS = {
    "no end": (b'data: {"choices": [{"delta": {"content": "half"}}]}\n\n', "ended before the reply did"),
    "malformed": (b'data: {"choices": [{"de\n\n', "Does http"),
    "an error": (b'data: {"error": {"message": "Overloaded", "code": 502}}\n\n', "Overloaded"),
    "not UTF-8": (b'data: {"a": "\xff"}\n\n', "Does http"),
}


@pytest.mark.parametrize(("payload", "words"), STREAMS.values(), ids=STREAMS)
async def test_a_broken_stream_is_an_error(client, payload, words):
    error = await fail(client([Sends(payload, content_type="text/event-stream")], max_retries=0), [].append)
    assert words in str(error)


async def test_of_several_choices_the_one_with_index_0_is_the_reply(client):
    chunks = [
        {"choices": [{"index": 1, "delta": {"content": "no"}}, {"index": 0, "delta": {"content": "4"}}]},
        {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}]},
        {"choices": [{"index": 0, "delta": {"content": "2"}, "finish_reason": "stop"}]},
    ]
    payload = b"".join(b"data: %s\n\n" % to_json(chunk) for chunk in chunks)
    pieces = []
    lm = client([Sends(payload + b"data: [DONE]\n\n", content_type="text/event-stream")])
    reply = await lm.complete(QUESTION, on_text=pieces.append)
    assert (reply.text, pieces, reply.finish_reason) == ("42", ["4", "2"], "stop")
    whole = {"choices": [{"index": n, "message": {"content": str(n)}, "finish_reason": "stop"} for n in (1, 0)]}
    assert (await client([Sends(to_json(whole))]).complete(QUESTION)).text == "0"


async def test_an_impossible_number_of_tokens_is_no_amount(client, on_text):
    step = Says("42", usage=(10**400, 7))
    reply = await client([step], prices={"input": 1, "output": 1}).complete(QUESTION, on_text=on_text)
    assert (reply.text, reply.usage.input_tokens, reply.usage.output_tokens) == ("42", 0, 0)  # so it is estimated


async def test_a_key_that_the_provider_repeats_is_in_no_traceback(client):
    error = await fail(client([Fails(401, f"Incorrect API key provided: {API_KEY}")]))
    assert "Incorrect API key provided: [api key]" in str(error)
    assert API_KEY not in "".join(traceback.format_exception(error))


def everything_below(base):
    return {base}.union(*map(everything_below, base.__subclasses__()))


def transport_error():
    """The base of what the HTTP client of the installed SDK raises: httpx or httpx2."""
    module = openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0]
    return sys.modules[module].HTTPError


FOREIGN = sorted(everything_below(openai.OpenAIError) | everything_below(transport_error()), key=str)


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: kind.__name__)
def test_every_error_of_the_sdk_and_its_transport_becomes_an_lm_error(kind):
    error = kind.__new__(kind)
    adapter = OpenAIAdapter("gpt-5", "key", "http://localhost/v1")
    with pytest.raises(LMError) as caught, lm_errors(adapter):
        raise error
    assert caught.value.__cause__ is error
    assert "{" not in str(caught.value)


def test_every_http_status_with_a_class_of_its_own_has_a_next_step_of_its_own_or_shares_one():
    general = {"OAuthError", "ConflictError"}
    everything = everything_below(openai.APIStatusError)
    classes = {kind.__name__ for kind in everything if kind.__module__.startswith("openai.")}
    assert classes - general <= NEXT_STEPS.keys()


def test_other_errors_go_through_the_conversion_untouched():
    adapter = OpenAIAdapter("gpt-5", "key", "http://localhost/v1")
    with pytest.raises(ZeroDivisionError), lm_errors(adapter):
        _ = 1 / 0


# The double itself


async def test_a_script_that_raises_tells_the_test(client):
    error = await fail(client(lambda _: 1 / 0))
    assert "division by zero" in str(error)


async def test_a_finished_script_says_so(client):
    assert "no step left" in str(await fail(client([])))


async def test_a_hanging_request_goes_on_when_it_is_released(client, provider):
    call = asyncio.create_task(client([Hangs(then="hello")]).complete(QUESTION))
    await asyncio.to_thread(provider.wait_for_requests, 1)
    provider.release()
    assert (await call).text == "hello"


async def test_closing_the_provider_ends_kept_connections_and_hanging_requests():
    provider = LoopbackProvider(["hello", Hangs()])
    lm = openai_lm(**provider.backend_kwargs, max_retries=0)
    await lm.complete(QUESTION)
    call = asyncio.create_task(lm.complete(QUESTION))
    await asyncio.to_thread(provider.wait_for_requests, 2)
    await asyncio.to_thread(provider.close)
    with pytest.raises(LMError):
        await call
    await lm.close()
