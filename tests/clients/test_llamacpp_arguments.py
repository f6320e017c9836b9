"""What can be known to be wrong about `llamacpp` before anything is fetched or started."""

import asyncio
import importlib.util
import re
from importlib.machinery import ModuleSpec

import pytest
from loopback import Fails

from rlm_kernel.clients.backends import BACKENDS
from rlm_kernel.clients.llamacpp.client import LlamaCppLM
from rlm_kernel.clients.llamacpp.weights import QWEN_CODER
from rlm_kernel.clients.registry import build
from rlm_kernel.errors import ConfigError, ContextOverflowError, LMError
from rlm_kernel.installation import install_command

QUESTION = [{"role": "user", "content": "hi"}]


def test_an_unknown_model_name_says_which_is_known():
    with pytest.raises(ConfigError, match=QWEN_CODER.name):
        LlamaCppLM("gpt-5")


def test_a_model_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.gguf"):
        LlamaCppLM("mine", model_path=tmp_path / "nothing.gguf")


def test_a_missing_extra_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(ConfigError, match=re.escape(install_command("local"))):
        LlamaCppLM()


def test_a_server_of_ones_own_needs_neither_extra_nor_weights(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    lm = LlamaCppLM("anything", base_url="http://127.0.0.1:9/v1", n_ctx=2048)
    assert (lm.backend, lm.model, lm.context_window) == ("llamacpp", "anything", 2048)


async def test_a_server_of_ones_own_is_asked_with_temperature_0_and_a_limit(provider):
    provider.script = ["hello"]
    lm = LlamaCppLM("anything", base_url=provider.base_url)
    await lm.complete(QUESTION)
    await lm.close()
    body = provider.requests[-1].body
    assert (body["temperature"], body["max_tokens"], body["stream"]) == (0, 1024, True)


async def test_a_server_of_ones_own_tells_its_window(provider):
    provider.script, provider.models = ["hello"], [{"id": "anything", "meta": {"n_ctx": 32768}}]
    lm = LlamaCppLM("anything", base_url=provider.base_url)
    assert lm.context_window is None
    await lm.complete(QUESTION)
    await (await lm._client._connection._openings[asyncio.get_running_loop()]).errand
    await lm.close()
    assert lm.context_window == 32768


def test_a_server_that_is_started_here_has_the_usual_window(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None, origin="here"))
    assert LlamaCppLM().context_window == 8192


@pytest.mark.parametrize(
    ("given", "env", "sent"),
    [
        ({}, {}, "EMPTY"),
        ({}, {"LLAMACPP_API_KEY": "from-env"}, "from-env"),
        ({"api_key": "given"}, {"LLAMACPP_API_KEY": "from-env"}, "given"),
    ],
    ids=["none", "environment", "argument"],
)
async def test_a_server_of_ones_own_is_sent_its_key(provider, given, env, sent):
    provider.script = ["hello"]
    lm = build("llamacpp", {"base_url": provider.base_url, **given}, env)
    await lm.complete(QUESTION)
    await lm.close()
    assert provider.requests[-1].headers["authorization"] == f"Bearer {sent}"


@pytest.mark.parametrize(("status", "named"), [(401, "LLAMACPP_API_KEY"), (401, "api_key"), (429, "max_retries")])
async def test_a_refusal_names_what_the_backend_takes(provider, status, named):
    provider.script = [Fails(status)]
    lm = build("llamacpp", {"base_url": provider.base_url}, {})
    with pytest.raises(LMError, match=rf"\b{named}\b"):
        await lm.complete(QUESTION)
    await lm.close()
    assert named in (*BACKENDS["llamacpp"].arguments, BACKENDS["llamacpp"].key_variable)


async def test_a_server_of_ones_own_is_asked_again_as_often_as_wanted(provider):
    provider.script = [Fails(429, retry_after=0), "hello"]
    lm = LlamaCppLM("anything", base_url=provider.base_url, max_retries=1)
    assert (await lm.complete(QUESTION)).text == "hello"
    await lm.close()


async def test_too_long_a_conversation_for_a_server_of_ones_own_is_no_matter_of_n_ctx(provider):
    provider.script = [Fails(400, "the request exceeds the available context size")]
    lm = LlamaCppLM("anything", base_url=provider.base_url, n_ctx=2048)
    with pytest.raises(ContextOverflowError) as caught:
        await lm.complete(QUESTION)
    await lm.close()
    assert "n_ctx" not in str(caught.value)
