"""What a provider does to the user who asks it: lies about usage, replies without end, errors that give orders."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from backends_on_loopback import closed, marks
from hostile.bombs import BOMBS, Bomber
from hostile.keys_on_loopback import KEY, QUESTION, Listener, each_backend, model_of
from hypothesis import given
from hypothesis import strategies as st
from loopback import MODEL, Fails, Sends
from remote_clients import openai_lm
from selection import mostly_full

from rlm import RLM, ScriptedLM, TokenLimitExceededError
from rlm_kernel.clients import transport
from rlm_kernel.clients.backends import BACKENDS
from rlm_kernel.clients.openai import OpenAIAdapter
from rlm_kernel.clients.provider_errors import lm_error
from rlm_kernel.clients.registry import build
from rlm_kernel.errors import LMError
from rlm_kernel.types import Reply, Usage

BY_LITELLM = ("anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash", "groq/m", "openrouter/x/y")


async def redirected(row, model, status):
    """What reaches another server when the provider redirects, and the error."""
    with Listener() as other, Listener(status, f"http://{other.host.replace('127.0.0.1', 'localhost')}") as provider:
        lm = build(row.name, {"model_name": model, "api_key": KEY, "base_url": provider.url, "max_retries": 0}, {})
        with pytest.raises(LMError) as caught:
            await lm.complete(QUESTION)
        await closed(lm)
        assert provider.seen, caught.value
        return other.seen, str(caught.value)


@pytest.mark.parametrize("status", [302, 307, 308])
@each_backend
async def test_a_redirect_takes_neither_key_nor_input_along(row, status):
    seen, message = await redirected(row, model_of(row), status)
    assert seen == []
    assert "the server redirects to http://localhost:" in message
    assert "Redirects are not followed, because they would send the key to another server" in message


@pytest.mark.filterwarnings("ignore:Items '.*' on TypedDict:UserWarning")
@pytest.mark.parametrize("model", [pytest.param(model, marks=marks("litellm")) for model in BY_LITELLM])
async def test_a_redirect_takes_nothing_along_with_any_provider_of_litellm(model):
    seen, _ = await redirected(BACKENDS["litellm"], model, 307)
    assert seen == []


ORDER = "\x1b]0;owned\x07\x1b[2J\x9d52;c;ZXZpbA==\x9c\u202e"
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def said_by_python(provider, status_body):
    """What Python itself prints of the error, in a program that catches nothing."""
    provider.script = [status_body]
    program = (
        f"from rlm import RLM\n"
        f"RLM(backend='openai', backend_kwargs={{**{provider.backend_kwargs!r}, 'max_retries': 0}}).completion('hi')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=100)
    assert done.returncode == 1
    return done.stderr.decode()


@pytest.mark.parametrize(
    "answer",
    [
        Fails(400, f"no {ORDER} such model"),
        Fails(500, body=f"<html>{ORDER}</html>"),
        Fails(400, request_id="req_\x9b2J"),
        Sends(f"<html>{ORDER}".encode(), content_type="text/html"),
    ],
    ids=["message", "page", "request id", "no API"],
)
def test_bytes_of_an_error_do_not_reach_the_terminal(provider, answer):
    said = said_by_python(provider, answer)
    assert "LMError" in said
    assert OBEYED.search(said) is None


def test_a_body_that_is_nested_without_end_is_an_error_of_the_provider(provider):
    provider.script = [Fails(400, body={"error": "x"})]
    deep = b'{"error":' * 900 + b"1" + b"}" * 900
    very_deep = b"[" * 100_000 + b"]" * 100_000
    for content in (deep, very_deep):
        provider.script = [Sends(content, content_type="application/json")]
        with pytest.raises(LMError):
            asyncio.run(ask_once(provider))


async def ask_once(provider):
    lm = openai_lm(**{**provider.backend_kwargs, "max_retries": 0})
    try:
        await lm.complete([{"role": "user", "content": "hi"}])
    finally:
        await lm.close()


def test_a_key_between_control_characters_is_hidden():
    adapter = OpenAIAdapter(MODEL, "secret-key-0123", "http://127.0.0.1")
    error = lm_error(adapter, "the key secret\x00-key\x1b[0m-0123 is wrong", "AuthenticationError")
    assert "secret-key-0123" not in str(error)


@given(st.text(st.characters() | st.sampled_from("\x1b\x9b\x9d\x07[];m0")))
def test_no_error_of_ours_says_what_a_terminal_obeys(text):
    assert OBEYED.search(str(LMError(text, backend="b", model="m"))) is None


CLIENT = Path(__file__).with_name("bombed_client.py")
MODELS = {"openai": "m", "anthropic": "m", "portkey": "@p/m", "litellm": "openai/m"}
HOST_MEMORY = 200_000_000
ONE_SDK = sorted(BOMBS.keys() - {"gzip", "a stream without an end"})
ASKED = "FINAL(len(llm_query_batched(['x' * 100] * 64)))"


async def ask(backend, bomb, how):
    """What became of a call in a process of its own, and how many requests it took."""
    with Bomber(bomb) as bomber:
        url = bomber.url.removesuffix("/v1") if backend == "anthropic" else bomber.url
        arguments = [str(CLIENT), backend, url, MODELS[backend], how]
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        return json.loads(said), bomber.requests


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", mostly_full(["whole", "streamed"], "streamed"))
@pytest.mark.parametrize("bomb", ["gzip", "a stream without an end"])
@pytest.mark.parametrize("backend", mostly_full(sorted(MODELS), "openai", "anthropic"))
async def test_no_sdk_holds_a_reply_without_an_end(backend, bomb, how):
    if importlib.util.find_spec({"portkey": "portkey_ai"}.get(backend, backend)) is None:
        pytest.skip(f"needs the SDK of {backend}")
    told, requests = await ask(backend, bomb, how)
    assert "It was not read any further" in told["words"]
    assert told["grown"] < HOST_MEMORY
    assert told["requests"] == requests == 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bomb", mostly_full(ONE_SDK, "gzip with an error", "headers without an end", "nested lists"))
async def test_whatever_arrives_the_memory_stays_bounded(bomb):
    for how in ("whole", "streamed"):
        told, _ = await ask("openai", bomb, how)
        assert told["words"].startswith("openai, model 'm'")
        assert told["grown"] < HOST_MEMORY


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize("cut", range(1, 9))
def test_a_long_stream_of_short_events_is_no_event_without_an_end(end, cut):
    size = transport.Size(streamed=True)
    told = (b'data: {"delta": "x"}' + end) * 5_000
    for start in range(0, len(told), cut * 7):
        size.add(told[start : start + cut * 7])


@pytest.mark.parametrize("usage", [Usage(), Usage(-(10**9), -(10**9)), Usage(0, 0, cost=0.0), Usage(True, 1.5)])
async def test_a_provider_that_does_not_say_what_it_used_uses_up_the_limit(usage):
    root = ScriptedLM([Reply(f"```repl\n{ASKED}\n```", "root", Usage(10, 5))], model="root")
    sub = ScriptedLM(lambda _: Reply("words", "sub", usage), model="sub")
    with pytest.raises(TokenLimitExceededError, match="are an estimate") as raised:
        await RLM(root, other_backends=[sub], max_tokens=10_000).acompletion("x")
    assert 10_000 <= raised.value.tokens_used < 10_000 + 100 + 16_384 + 1_000
    assert 10 <= len(sub.calls) < 20


@pytest.mark.parametrize(
    ("outcome", "charged"),
    [
        (LMError("no", backend="b", model="sub", status=401), 0),
        (LMError("no", backend="b", model="sub", status=429), 0),
        (LMError("no", backend="b", model="sub", status=500), 0),
        (LMError("no", backend="b", model="sub", status=504), 16_384),
        (LMError("broken off", backend="b", model="sub"), 16_384),
        (LMError("never sent", backend="b", model="sub", requests=0), 0),
        (LMError("all tries timed out", backend="b", model="sub", requests=3), 3 * 16_384),
        (LMError("no text", backend="b", model="sub", usage=Usage(7, 30)), 30),
        (ValueError("a bug of the client"), 16_384),
    ],
    ids=str,
)
async def test_a_call_that_fails_counts_unless_it_was_refused(outcome, charged):
    root = ScriptedLM(["```repl\nprint(llm_query('x'))\n```", "FINAL(done)"], model="root")
    done = await RLM(root, other_backends=[ScriptedLM(lambda _: outcome, model="sub")]).acompletion("x")
    sub = done.usage_summary.model_usage_summaries.get("sub")
    assert (sub.total_output_tokens if sub else 0) == charged
    assert bool(sub and sub.estimated_tokens) == (charged >= 16_384)


async def test_a_reply_without_choices_and_with_usage_is_charged_for(provider):
    from loopback import Sends

    root = ScriptedLM(["```repl\nprint(llm_query('x'))\n```", "FINAL(done)"], model="root")
    usage = {"prompt_tokens": 11, "completion_tokens": 222, "total_tokens": 233}
    provider.script = lambda _: Sends(json.dumps({"id": "x", "choices": [], "usage": usage}).encode())
    kwargs = {"other_backends": ["openai"], "other_backend_kwargs": [provider.backend_kwargs]}
    done = await RLM(root, **kwargs).acompletion("x")
    (spent,) = [s for name, s in done.usage_summary.model_usage_summaries.items() if name != "root"]
    assert (spent.total_calls, spent.total_input_tokens, spent.total_output_tokens) == (1, 11, 222)
