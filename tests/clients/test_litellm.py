"""The `litellm` backend: whom it asks, where its keys come from, what it reports, and that it stays quiet."""

from __future__ import annotations

import subprocess
import sys

import pytest
from backends_on_loopback import KEY, client_of, closed, marks
from loopback import MODEL, Fails, Says

from rlm_kernel.clients.registry import build
from rlm_kernel.errors import ConfigError, LMError

QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]

pytestmark = marks("litellm")


@pytest.fixture
async def client(provider):
    made = []

    def make(script=(), **given):
        provider.script = script
        made.append(client_of("litellm", provider, **given))
        return made[-1]

    yield make
    for lm in made:
        await closed(lm)


@pytest.fixture(params=["whole", "streamed"])
def on_text(request):
    return None if request.param == "whole" else [].append


async def test_the_name_of_the_model_says_whom_it_asks(client, provider, on_text):
    anthropic = client([Says("hello", usage=(12, 4), cached=8)], model_name="anthropic/claude-sonnet-4-5")
    anthropic.adapter.base_url = provider.base_url.removesuffix("/v1")
    reply = await anthropic.complete(QUESTION, on_text=on_text)
    assert provider.requests[0].path == "/v1/messages"
    assert (reply.text, reply.usage.input_tokens, reply.usage.output_tokens) == ("hello", 12, 4)


async def test_its_own_price_table_makes_the_cost(client, on_text):
    lm = client([Says("hello", usage=(1_000, 1_000))], model_name="openai/gpt-4o")
    reply = await lm.complete(QUESTION, on_text=on_text)
    assert reply.usage.cost == pytest.approx(0.0125)


async def test_openrouters_cost_goes_through(client, on_text):
    lm = client([Says("hello", cost=0.25)], model_name="openrouter/openai/gpt-4o")
    assert (await lm.complete(QUESTION, on_text=on_text)).usage.cost == 0.25


@pytest.mark.parametrize(("model", "window"), [("openai/gpt-4o", 128_000), (f"openai/{MODEL}", None)])
async def test_it_knows_context_windows(client, model, window):
    lm = client(["hello"], model_name=model)
    await lm.complete(QUESTION)
    assert lm.context_window == window


async def test_other_arguments_are_handed_on(client, provider):
    await client(["hello"], organization="org-1", extra_headers={"x-mine": "yes"}).complete(QUESTION)
    headers = provider.requests[0].headers
    assert (headers["openai-organization"], headers["x-mine"]) == ("org-1", "yes")


@pytest.mark.parametrize(
    ("model", "variable"),
    [
        ("gpt-5", "OPENAI_API_KEY"),
        ("claude-sonnet-4-5", "ANTHROPIC_API_KEY"),
        ("gemini/gemini-2.5-flash", "GEMINI_API_KEY"),
        ("openrouter/openai/gpt-4o", "OPENROUTER_API_KEY"),
    ],
)
def test_a_missing_key_names_the_variable(model, variable):
    with pytest.raises(ConfigError, match=f"set {variable} in the environment"):
        build("litellm", {"model_name": model}, {})
    assert build("litellm", {"model_name": model}, {variable: KEY}).adapter.api_key == KEY


def test_a_model_of_another_provider_needs_no_key_of_ours():
    assert build("litellm", {"model_name": "ollama/llama3"}, {}).adapter.api_key == ""


async def test_a_key_that_only_litellm_knows_the_variable_of_may_stand_in_an_env_file(provider):
    provider.script = ["hello"]
    given = {"model_name": "together_ai/llama", "base_url": provider.base_url, "max_retries": 0}
    lm = build("litellm", given, {"TOGETHERAI_API_KEY": KEY})
    await lm.complete(QUESTION)
    await closed(lm)
    assert provider.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_keys_among_the_options_and_the_environment_are_hidden(client, monkeypatch):
    monkeypatch.setenv("RLM_TEST_API_KEY", "from-the-environment")
    lm = client([Fails(401, "Wrong: aws-secret-value from-the-environment")], aws_secret_access_key="aws-secret-value")
    with pytest.raises(LMError) as caught:
        await lm.complete(QUESTION)
    assert "Wrong: [api key] [api key]" in str(caught.value)


def test_it_neither_prints_nor_fetches(provider):
    provider.script = [Fails(401, "Wrong key"), "hello"]
    code = f"""
import asyncio, socket
connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo
def refuse(address):
    if str(address[0]) not in ("127.0.0.1", "localhost"): raise AssertionError(f"it asks {{address}}")
def connected(self, address): refuse(address); return connect(self, address)
def found(host, *args, **kwargs): refuse([host]); return getaddrinfo(host, *args, **kwargs)
socket.socket.connect, socket.getaddrinfo = connected, found
from rlm_kernel.clients.registry import build
from rlm_kernel.errors import LMError
given = dict(model_name="openai/gpt-4o", api_key="{KEY}", base_url="{provider.base_url}", max_retries=0)
lm = build("litellm", given, {{}})
async def main():
    try:
        await lm.complete([{{"role": "user", "content": "Who are you?"}}])
    except LMError:
        return await lm.complete([{{"role": "user", "content": "Who are you?"}}])
assert asyncio.run(main()).text == "hello"
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_importing_the_module_does_not_import_litellm():
    code = "import sys, rlm_kernel.clients.litellm; sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
