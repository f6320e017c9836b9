"""What a provider does to the user who asks it."""

from __future__ import annotations

import pytest
from backends_on_loopback import closed, marks
from hostile.keys_on_loopback import KEY, QUESTION, Listener, each_backend, model_of

from rlm_kernel.clients.registry import BACKENDS, build
from rlm_kernel.errors import LMError

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
    assert "No redirect is followed, so that the key goes to no other server" in message


@pytest.mark.filterwarnings("ignore:Items '.*' on TypedDict:UserWarning")
@pytest.mark.parametrize("model", [pytest.param(model, marks=marks("litellm")) for model in BY_LITELLM])
async def test_a_redirect_takes_nothing_along_with_any_provider_of_litellm(model):
    seen, _ = await redirected(BACKENDS["litellm"], model, 307)
    assert seen == []
"""What a provider sends: errors that would give orders to a terminal, or break whoever reads them."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import MODEL, Fails, Sends

from rlm_kernel.clients.endpoint import Endpoint
from rlm_kernel.clients.openai import OpenAILM
from rlm_kernel.clients.provider_errors import failure
from rlm_kernel.errors import LMError

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
            asyncio.run(ask(provider))


async def ask(provider):
    lm = OpenAILM(**{**provider.backend_kwargs, "max_retries": 0})
    try:
        await lm.complete([{"role": "user", "content": "hi"}])
    finally:
        await lm.close()


def test_a_key_between_control_characters_is_hidden():
    endpoint = Endpoint("openai", MODEL, "http://127.0.0.1", "KEY", 1.0, secrets=("secret-key-0123",))
    error = failure(endpoint, "the key secret\x00-key\x1b[0m-0123 is wrong", "AuthenticationError")
    assert "secret-key-0123" not in str(error)


@given(st.text(st.characters() | st.sampled_from("\x1b\x9b\x9d\x07[];m0")))
def test_no_error_of_ours_says_what_a_terminal_obeys(text):
    assert OBEYED.search(str(LMError(text, backend="b", model="m"))) is None
