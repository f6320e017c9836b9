"""The table of backends: every mistake in a name or an argument is found before anything starts."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from types import MappingProxyType

import pytest

from rlm_kernel.clients.arguments import TYPES
from rlm_kernel.clients.backends import BACKENDS
from rlm_kernel.clients.openai import OpenAIAdapter
from rlm_kernel.clients.registry import build, find
from rlm_kernel.clients.variables import environment_variables
from rlm_kernel.errors import ConfigError
from rlm_kernel.installation import install_command

ENV = {"OPENAI_API_KEY": "from-env"}
DOCUMENTED = {"openai", "portkey", "openrouter", "vllm", "litellm", "anthropic"}
OTHERS = {"vercel", "azure_openai", "gemini", "ollama", "llamacpp"}
ALL = list(BACKENDS.values())


def refusal(backend_kwargs, env=ENV, name="openai") -> str:
    with pytest.raises(ConfigError) as caught:
        build(name, backend_kwargs, env)
    return str(caught.value)


# Names


def test_every_documented_backend_is_in_the_table():
    assert BACKENDS.keys() == DOCUMENTED | OTHERS


@pytest.mark.parametrize("backend", ALL, ids=lambda backend: backend.name)
def test_every_argument_of_a_backend_has_a_type(backend):
    assert set(backend.arguments) <= TYPES.keys()


@pytest.mark.parametrize("backend", ALL, ids=lambda backend: backend.name)
def test_every_backend_has_a_factory(backend):
    module, _, name = backend.factory.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize(("name", "profile"), [("openai", "large"), ("llamacpp", "small")])
def test_a_backend_knows_the_prompt_its_models_need(name, profile):
    assert find(name).profile == profile


def test_an_unknown_backend_is_answered_with_the_names_and_a_guess():
    message = refusal({}, name="opnai")
    assert "Unknown backend 'opnai'; did you mean 'openai'?" in message
    assert all(repr(name) in message for name in BACKENDS)


@pytest.mark.parametrize("name", [None, 3, ["openai"]])
def test_a_backend_that_is_no_name_is_refused(name):
    assert "Unknown backend" in refusal({}, name=name)


def test_reading_the_table_imports_no_backend():
    names = "{'openai', 'anthropic', 'genai_prices', 'rlm_kernel.clients.openai', 'rlm_kernel.clients.llamacpp.client'}"
    code = f"import sys, rlm_kernel.clients.registry; sys.exit(bool({names} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Arguments


def test_all_arguments_reach_the_client():
    given = {
        "model_name": "gpt-5",
        "api_key": "mine",
        "base_url": "http://localhost:8000/v1",
        "context_window": 8000,
        "max_retries": 0,
        "max_tokens": 50,
        "prices": {"input": 1, "output": 2},
        "sampling_args": {"temperature": 0},
        "timeout": 9.5,
    }
    lm = build("openai", MappingProxyType(given), ENV)
    assert isinstance(lm.adapter, OpenAIAdapter)
    assert {name: getattr(lm.adapter, name) for name in given} == given
    assert (lm.backend, lm.model) == ("openai", "gpt-5")


def test_the_given_dict_is_not_changed():
    given = {"model_name": "gpt-5"}
    build("openai", given, {**ENV, "OPENAI_BASE_URL": "http://localhost:8000/v1"})
    assert given == {"model_name": "gpt-5"}


@pytest.mark.parametrize("given", [None, {}, {"model_name": None}])
def test_a_missing_argument_is_named_with_an_example(given):
    message = refusal(given)
    assert "needs 'model_name'" in message
    assert "backend_kwargs={'model_name': 'gpt-5-mini'}" in message


@pytest.mark.parametrize("value", ["gpt", None])
def test_an_unknown_argument_is_answered_with_the_names_and_a_guess(value):
    message = refusal({"model": value, "model_name": "gpt-5"})
    assert "has no argument 'model'; did you mean 'model_name'?" in message
    assert all(repr(name) in message for name in find("openai").arguments)


def test_backend_kwargs_that_are_no_dict_are_refused():
    assert "backend_kwargs is a dict" in refusal([("model_name", "gpt-5")])


WRONG = [
    ("model_name", " "),
    ("model_name", 5),
    ("api_key", 12345),
    ("base_url", "localhost:8000"),
    ("context_window", 0),
    ("max_retries", -1),
    ("max_retries", "2"),
    ("max_retries", 0.0),
    ("max_tokens", 1.5),
    ("max_tokens", True),
    ("sampling_args", "hot"),
    ("prices", 3),
    ("base_url", "http://[::1"),
    ("base_url", "http://localhost:99999/v1"),
    ("base_url", "http://localhost:port/v1"),
    ("base_url", "http://localhost:8000/v1\n"),
    ("timeout", 0),
    ("timeout", "30"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_an_argument_of_the_wrong_kind_is_named(name, value):
    message = refusal({"model_name": "gpt-5", name: value})
    assert message.startswith(f"{name} in backend_kwargs must be")
    assert "12345" not in message


def test_none_counts_as_not_given():
    lm = build("openai", {"model_name": "gpt-5", "timeout": None, "base_url": None}, ENV)
    assert (lm.adapter.timeout, lm.adapter.base_url) == (300.0, None)


# Keys and endpoints


@pytest.mark.parametrize("key", [None, ""])
def test_the_key_is_taken_from_the_environment_unless_given(key):
    assert build("openai", {"model_name": "gpt-5", "api_key": key}, ENV).adapter.api_key == "from-env"
    assert build("openai", {"model_name": "gpt-5", "api_key": "mine"}, ENV).adapter.api_key == "mine"


def test_a_line_break_at_the_end_of_the_variable_is_no_part_of_the_key():
    assert build("openai", {"model_name": "gpt-5"}, {"OPENAI_API_KEY": "key\n"}).adapter.api_key == "key"


@pytest.mark.parametrize("env", [{}, {"OPENAI_API_KEY": ""}, {"OPENAI_API_KEY": " "}])
def test_a_missing_key_names_argument_variable_and_file(env):
    message = refusal({"model_name": "gpt-5", "api_key": None}, env)
    assert all(word in message for word in ("api_key", "OPENAI_API_KEY", ".env"))


def test_the_endpoint_is_taken_from_the_environment_unless_given():
    env = {**ENV, "OPENAI_BASE_URL": "http://localhost:1/v1"}
    assert build("openai", {"model_name": "m"}, env).adapter.base_url == "http://localhost:1/v1"
    given = {"model_name": "m", "base_url": "http://localhost:2/v1"}
    assert build("openai", given, env).adapter.base_url == "http://localhost:2/v1"


# Backends that are one entry

ENTRIES = [
    ("openrouter", {}, {"OPENROUTER_API_KEY": "k"}, ("https://openrouter.ai/api/v1", "k")),
    ("openrouter", {}, {"OPENROUTER_API_KEY": "k", "OPENROUTER_BASE_URL": "http://a/v1"}, ("http://a/v1", "k")),
    ("vllm", {"base_url": "http://a:8000/v1"}, {}, ("http://a:8000/v1", "EMPTY")),
    ("vllm", {"base_url": "http://a:8000/v1"}, {"VLLM_API_KEY": "k"}, ("http://a:8000/v1", "k")),
    ("gemini", {}, {"GEMINI_API_KEY": "k"}, ("https://generativelanguage.googleapis.com/v1beta/openai", "k")),
    ("azure_openai", {"base_url": "https://a.com/", "api_key": "k"}, {}, ("https://a.com/openai/v1", "k")),
    ("azure_openai", {"base_url": "https://a.com/openai/v1", "api_key": "k"}, {}, ("https://a.com/openai/v1", "k")),
    (
        "azure_openai",
        {},
        {"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_ENDPOINT": "https://a.com"},
        ("https://a.com/openai/deployments/m", "k"),
    ),
    ("ollama", {}, {}, ("http://localhost:11434/v1", "ollama")),
    ("ollama", {}, {"OLLAMA_HOST": "192.0.2.7"}, ("http://192.0.2.7:11434/v1", "ollama")),
    ("ollama", {}, {"OLLAMA_HOST": "0.0.0.0:80"}, ("http://0.0.0.0:80/v1", "ollama")),
    ("ollama", {}, {"OLLAMA_HOST": ":80"}, ("http://localhost:80/v1", "ollama")),
    ("ollama", {}, {"OLLAMA_HOST": "0.0.0.0:"}, ("http://0.0.0.0:11434/v1", "ollama")),
    ("ollama", {}, {"OLLAMA_HOST": "::1"}, ("http://[::1]:11434/v1", "ollama")),
    ("ollama", {}, {"OLLAMA_HOST": "[::1]"}, ("http://[::1]:11434/v1", "ollama")),
    ("ollama", {}, {"OLLAMA_HOST": "[::1]:80"}, ("http://[::1]:80/v1", "ollama")),
    ("ollama", {}, {"OLLAMA_HOST": "a.com/ollama"}, ("http://a.com:11434/ollama", "ollama")),
    ("ollama", {}, {"OLLAMA_HOST": "https://a.com/"}, ("https://a.com/v1", "ollama")),
    ("ollama", {"base_url": "http://a:1/v1"}, {"OLLAMA_HOST": "b"}, ("http://a:1/v1", "ollama")),
    ("anthropic", {}, {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": "http://a"}, ("http://a", "k")),
]


@pytest.mark.parametrize(("name", "given", "env", "found"), ENTRIES, ids=str)
def test_endpoint_and_key_come_from_argument_environment_or_table(name, given, env, found):
    lm = build(name, {"model_name": "m", **given}, env)
    assert (lm.adapter.base_url, lm.adapter.api_key) == found
    assert (lm.backend, lm.model) == (name, "m")


def test_a_backend_without_a_variable_for_its_key_names_none():
    assert refusal({"model_name": "m", "api_key": "two words"}, {}, "ollama").startswith("api_key is empty or holds")


@pytest.mark.parametrize("name", ["openai", "anthropic", "openrouter", "gemini", "azure_openai", "portkey"])
def test_a_missing_key_names_the_variable_of_the_backend(name):
    message = refusal({"model_name": "m", "base_url": "http://localhost:1/v1"}, {}, name)
    assert f"set {find(name).key_variable} in the environment" in message


@pytest.mark.parametrize(
    ("name", "words"), [("vllm", "'base_url'"), ("azure_openai", "AZURE_OPENAI_ENDPOINT can hold")]
)
def test_a_missing_endpoint_is_named(name, words):
    assert words in refusal({"model_name": "m", "api_key": "k"}, {}, name)


@pytest.mark.parametrize("name", ["litellm"])
def test_a_missing_package_names_the_extra(name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    message = refusal({"model_name": "m", "api_key": "k"}, {}, name)
    assert install_command(name) in message


@pytest.mark.parametrize("name", ["portkey", "litellm", "anthropic"])
def test_making_a_client_imports_no_sdk(name):
    code = f"""
import sys
from rlm_kernel.clients import registry
registry.check_extra = lambda *_: None
registry.build({name!r}, {{"model_name": "m", "api_key": "k"}}, {{}})
sys.exit(bool({{"portkey_ai", "litellm", "anthropic", "openai", "genai_prices"}} & sys.modules.keys()))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_openrouter_is_told_who_asks():
    assert build("openrouter", {"model_name": "m", "api_key": "k"}, {}).adapter.headers == {"X-Title": "rlm-kernel"}


def test_llamacpp_needs_neither_key_nor_argument():
    lm = build("llamacpp", None, {})
    assert lm.backend == "llamacpp"


# The environment


def test_the_nearest_env_file_upward_is_read(tmp_path):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / ".env").write_text("RLM_TEST_FAR=far\n")
    assert environment_variables(deep)["RLM_TEST_FAR"] == "far"
    (tmp_path / "a" / ".env").write_text("RLM_TEST_NEAR='near'  # a comment\nRLM_TEST_BARE\n")
    variables = environment_variables(deep)
    assert variables["RLM_TEST_NEAR"] == "near"
    assert not {"RLM_TEST_FAR", "RLM_TEST_BARE"} & variables.keys()


def test_the_environment_wins_over_the_file_and_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("RLM_TEST_BOTH", "process")
    (tmp_path / ".env").write_text("RLM_TEST_BOTH=file\nRLM_TEST_FILE=file\n")
    before = dict(os.environ)
    variables = environment_variables(tmp_path)
    assert (variables["RLM_TEST_BOTH"], variables["RLM_TEST_FILE"]) == ("process", "file")
    assert dict(os.environ) == before


def test_the_working_directory_is_where_the_search_starts(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("RLM_TEST_HERE=yes\n")
    monkeypatch.chdir(tmp_path)
    assert environment_variables()["RLM_TEST_HERE"] == "yes"


def test_a_pipe_is_read_once_for_those_who_want_it(tmp_path):
    os.mkfifo(tmp_path / ".env")
    filled = threading.Thread(target=(tmp_path / ".env").write_text, args=["RLM_TEST_PIPE=yes\n"])
    filled.start()
    assert "RLM_TEST_PIPE" not in environment_variables(tmp_path, pipes=False)
    assert environment_variables(tmp_path)["RLM_TEST_PIPE"] == "yes"
    filled.join()


def test_a_folder_named_env_is_passed_over(tmp_path):
    (tmp_path / ".env").write_text("RLM_TEST_FAR=far\n")
    (tmp_path / "a" / ".env").mkdir(parents=True)
    assert environment_variables(tmp_path / "a")["RLM_TEST_FAR"] == "far"


def test_a_folder_that_cannot_be_looked_into_is_passed_over(tmp_path):
    (tmp_path / ".env").write_text("RLM_TEST_FAR=far\n")
    assert environment_variables(tmp_path / ("long" * 100))["RLM_TEST_FAR"] == "far"


def test_in_a_folder_that_was_removed_there_is_no_env_file(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert environment_variables() == os.environ


def test_an_env_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / ".env").write_bytes(b"KEY=\xff\xfe")
    with pytest.raises(ConfigError, match=r"\.env cannot be read"):
        environment_variables(tmp_path)
