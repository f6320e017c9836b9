"""Where a context window is known from: the user, the server's list of models, the price table, or nobody."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from backends_on_loopback import KEY, client_of, closed, each_backend
from hypothesis import given
from hypothesis import strategies as st
from loopback import MODEL
from remote_clients import anthropic_lm, openai_lm, portkey_lm

from rlm_kernel.clients.remote import window_in_listing

QUESTION = [{"role": "user", "content": "Who are you?"}]
TELLING = [backend for backend in each_backend() if backend.values[0] != "litellm"]


@pytest.fixture
async def client(provider):
    made = []

    def make(backend, **given):
        provider.script = lambda _: "hello"
        made.append(client_of(backend, provider, **given))
        return made[-1]

    yield make
    for lm in made:
        await closed(lm)


async def after_a_call(lm):
    await lm.complete(QUESTION)
    await (await lm._connection._openings[asyncio.get_running_loop()]).errand
    return lm.context_window


# The server


@pytest.mark.parametrize("backend", TELLING)
async def test_the_server_is_asked_once_beside_the_first_call(client, provider, backend):
    lm = client(backend)
    provider.models = [{"id": "another", "max_model_len": 1}, {"id": lm.model, "max_model_len": 4096}]
    assert lm.context_window is None
    assert await after_a_call(lm) == 4096
    await lm.close()
    assert await after_a_call(lm) == 4096
    assert provider.lookups == 1


@pytest.mark.parametrize("backend", each_backend())
async def test_what_the_user_says_stands_and_the_server_is_not_asked(client, provider, backend):
    lm = client(backend, context_window=1000)
    provider.models = [{"id": MODEL, "max_model_len": 4096}]
    assert await after_a_call(lm) == 1000
    assert provider.lookups == 0


@pytest.mark.parametrize("backend", each_backend())
async def test_a_server_that_does_not_tell_is_no_failure(client, backend):
    assert await after_a_call(client(backend)) is None


async def test_a_list_that_never_comes_does_not_hold_up_the_run_or_the_end(client, provider):
    provider.models_hang = True
    lm = client("openai")
    assert (await lm.complete(QUESTION)).text == "hello"
    await asyncio.to_thread(provider.wait_for_lookups)  # asked beside the call, perhaps after it
    await lm.close()
    await asyncio.to_thread(provider.wait_for_disconnects)


def test_openai_itself_is_not_asked():
    assert openai_lm("gpt-5", KEY).adapter.at_openai
    assert openai_lm("gpt-5", KEY, "https://eu.api.openai.com/v1").adapter.at_openai
    assert not openai_lm("gpt-5", KEY, "https://openai.com.example/v1").adapter.at_openai


# The list

SAID = [
    ({"max_model_len": 4096}, 4096),
    ({"meta": {"n_ctx": 8192, "n_ctx_train": 32768}}, 8192),
    ({"context_length": 128_000, "top_provider": {}}, 128_000),
    ({"max_input_tokens": 200_000, "max_tokens": 64_000}, 200_000),
    ({"max_model_len": None, "context_length": 5}, 5),
    ({"max_model_len": "many"}, None),
    ({"max_model_len": 0}, None),
    ({"meta": None}, None),
    ({}, None),
]


@pytest.mark.parametrize(("entry", "window"), SAID, ids=str)
def test_a_window_stands_under_many_names(entry, window):
    assert window_in_listing({"data": [{"id": "m", **entry}, {"id": "n", "max_model_len": 1}]}, "m") == window


def test_a_list_of_one_is_about_the_model_whatever_it_is_called():
    assert window_in_listing({"data": [{"id": "/models/m.gguf", "max_model_len": 5}]}, "m") == 5
    assert window_in_listing({"data": [{"id": "a", "max_model_len": 5}, {"id": "b", "max_model_len": 5}]}, "m") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["data", "id", "meta", "n_ctx", "x"]), inner),
)


@given(json_values)
def test_no_list_is_a_failure(listing):
    assert window_in_listing(listing, "m") is None or window_in_listing(listing, "m") > 0


# The table


@pytest.mark.parametrize(
    ("lm", "window"),
    [
        (openai_lm("gpt-5", KEY), 400_000),
        (anthropic_lm("claude-sonnet-4-20250514", KEY), 200_000),
        (portkey_lm("@openai/gpt-5-nano", KEY), 400_000),
        (openai_lm("no-such-model", KEY), None),
        (openai_lm("gpt-5", KEY, "http://localhost:8000/v1"), None),
    ],
    ids=lambda value: getattr(value, "model", None),
)
def test_the_price_table_knows_windows_of_models_at_home(lm, window):
    assert lm.pricing.window(lm.adapter.price_names(lm.model)) == window


async def test_the_table_is_read_when_the_client_is_opened(monkeypatch):
    lm = openai_lm("gpt-5", KEY)
    monkeypatch.setattr(lm.adapter, "open", lambda: None)
    lm._open()
    assert lm.context_window == 400_000


# Loops


def test_a_lookup_that_is_under_way_ends_with_its_loop(provider):
    provider.script, provider.models_hang = (lambda _: "hello"), True
    code = f"""
import asyncio
from rlm_kernel.clients.openai import OpenAIAdapter
from rlm_kernel.clients.remote import RemoteLM
lm = RemoteLM(OpenAIAdapter(**{provider.backend_kwargs!r}))
for _ in range(2):
    print(asyncio.run(lm.complete({QUESTION!r})).text)
"""
    ended = subprocess.run([sys.executable, "-Xdev", "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["hello", "hello"]
    assert not [words for words in ("was destroyed", "never retrieved", "never awaited") if words in ended.stderr]
