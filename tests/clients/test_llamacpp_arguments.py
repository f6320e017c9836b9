"""What can be known to be wrong about `llamacpp` before anything is fetched or started."""

import importlib.util

import pytest

from rlm_kernel.clients.llamacpp import LlamaCppLM
from rlm_kernel.clients.weights import QWEN_CODER
from rlm_kernel.errors import ConfigError


def test_an_unknown_model_name_says_which_is_known():
    with pytest.raises(ConfigError, match=QWEN_CODER.name):
        LlamaCppLM("gpt-5")


def test_a_model_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.gguf"):
        LlamaCppLM("mine", model_path=tmp_path / "nothing.gguf")


def test_a_missing_extra_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(ConfigError, match=r"pip install 'rlm-kernel\[local\]'"):
        LlamaCppLM()


def test_a_server_of_ones_own_needs_neither_extra_nor_weights(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    lm = LlamaCppLM("anything", base_url="http://127.0.0.1:9/v1", n_ctx=2048)
    assert (lm.backend, lm.model, lm.context_window) == ("llamacpp", "anything", 2048)


async def test_a_server_of_ones_own_is_asked_with_temperature_0_and_a_limit(provider):
    provider.script = ["hello"]
    lm = LlamaCppLM("anything", base_url=provider.base_url)
    await lm.complete([{"role": "user", "content": "hi"}])
    await lm.close()
    body = provider.requests[-1].body
    assert (body["temperature"], body["max_tokens"], body["stream"]) == (0, 1024, True)
