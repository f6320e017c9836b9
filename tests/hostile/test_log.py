"""What a stranger's record, a log or a notebook, does to the user who goes on from it."""

from __future__ import annotations

import json

import nbformat
import papermill
import pytest
from hostile.keys_on_loopback import INPUT, KEY, Listener, each_backend, model_of

from rlm.logger import RLMLogger
from rlm_kernel.arguments import models_of
from rlm_kernel.cli import main
from rlm_kernel.clients.registry import BACKENDS
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.clients.trust import Source
from rlm_kernel.configuration import arguments_of
from rlm_kernel.errors import ConfigError, RecordingError
from rlm_kernel.notebooks import settings as notebook_settings
from rlm_kernel.rlm import RLM
from rlm_kernel.trajectory.log.recording import read


@pytest.fixture
def thief():
    with Listener() as listener:
        yield listener


@pytest.fixture(scope="module")
def honest_log(tmp_path_factory):
    """The lines of a run without a turn."""
    logger = RLMLogger(tmp_path_factory.mktemp("logs"))
    RLM(ScriptedLM(["FINAL(1)", "FINAL(1)"]), logger=logger).completion(INPUT, "q")
    with open(logger.log_file_path, encoding="utf-8") as file:
        return file.read().splitlines()


@pytest.fixture
def forged(honest_log, tmp_path, monkeypatch):
    """Makes a log with this configuration; the environment holds a key for every backend."""
    for row in BACKENDS.values():
        if row.key_variable:
            monkeypatch.setenv(row.key_variable, KEY)

    def make(**configuration):
        first = json.loads(honest_log[0])
        first["configuration"] |= configuration
        for name in ("backend", "backend_kwargs"):
            first[name] = first["configuration"][name]
        path = tmp_path / "rlm_stranger.jsonl"
        path.write_text("\n".join([json.dumps(first), *honest_log[1:]]) + "\n")
        return path

    return make


def resumed_models(log, source=Source.RECORD, **overrides):
    """The models of an RLM that goes on from a log, as `RLM` makes them."""
    arguments = arguments_of(read(log), overrides, RLM, source)
    return models_of(
        [arguments["backend"], *(arguments.get("other_backends") or ())],
        [arguments.get("backend_kwargs"), *(arguments.get("other_backend_kwargs") or ())],
        arguments.get("sampling_args"),
        arguments.get("sub_sampling_args"),
    )[0]


@each_backend
def test_a_loopback_server_of_a_log_gets_no_key(row, forged, thief):
    log = forged(backend=row.name, backend_kwargs={"model_name": model_of(row), "base_url": thief.url})
    if row.name == "ollama":  # it has no key
        assert resumed_models(log).root.base_url == thief.url
    else:
        with pytest.raises(ConfigError) as refused:
            resumed_models(log)
        assert f"base_url in {log.name} names the server {thief.url}, which would get " in str(refused.value)
        assert "If you trust it, give base_url yourself" in str(refused.value)
        assert KEY not in str(refused.value)
    assert resumed_models(log, Source.ARGUMENT).root.model == model_of(row)
    assert thief.seen == []


@pytest.mark.parametrize("name", ["other_backend_kwargs", "sampling_args", "sub_sampling_args"])
def test_no_other_argument_of_a_log_names_a_server_for_a_key(name, forged, thief):
    value = {"model_name": "m", "base_url": thief.url}
    more = {name: [value], "other_backends": ["openai"]} if name.startswith("other") else {name: value}
    log = forged(backend="openai", backend_kwargs={"model_name": "m"}, **more)
    with pytest.raises(ConfigError, match="which would get|decides who gets"):
        resumed_models(log)


def test_resume_and_live_replay_ask_no_server_of_a_log(forged, thief):
    log = forged(backend="openai", backend_kwargs={"model_name": "m", "base_url": thief.url})
    with pytest.raises(ConfigError, match="OPENAI_API_KEY in the environment"):
        RLM.resume(log)
    assert main(["resume", str(log), "--quiet"]) == 2
    assert main(["replay", str(log), "--live"]) == 2
    assert thief.seen == []
    # The server of the log is not taken over where the model is.
    with pytest.raises(ConfigError, match="needs 'base_url'"):
        resumed_models(log, backend="vllm", backend_kwargs={"model_name": "m"})


@pytest.mark.parametrize(
    "kwargs",
    [
        {"aws_region_name": "example.com/?"},
        {"vertex_location": "example.com/"},
        {"extra_headers": {"x": "y"}},
        {"fallbacks": ["huggingface/x"]},
        {"model_name": "bedrock/arn:aws:bedrock:example.com/x:1:y"},
        {"model_name": "openai/../../x"},
        {"sampling_args": {"api_base": "http://127.0.0.1:1"}},
        {"sampling_args": {"mock": 1}},
    ],
    ids=str,
)
def test_no_option_of_a_log_chooses_where_litellm_sends_a_key(kwargs, forged, monkeypatch):
    monkeypatch.setattr("rlm_kernel.clients.registry.find_spec", lambda _: True)
    log = forged(backend="litellm", backend_kwargs={"model_name": "openai/m", **kwargs})
    with pytest.raises(ConfigError, match="which would get a key that litellm finds|decides who gets a key"):
        resumed_models(log)
    plain = {"model_name": "openai/m", "timeout": 9, "sampling_args": {"temperature": 0}}
    assert resumed_models(forged(backend="litellm", backend_kwargs=plain)).root.model == "openai/m"


@pytest.mark.parametrize("where", [["huggingface/https://example.com"], {"https://example.com": 1}, {"host": "a.com"}])
def test_an_address_is_found_wherever_it_stands_in_a_log(where, forged):
    log = forged(backend="litellm", backend_kwargs={"model_name": "openai/m", "fallbacks": where})
    with pytest.raises(RecordingError, match="names the server"):
        resumed_models(log)


@pytest.mark.parametrize("name", ["provider", "config", "custom_host", "virtual_key", "Authorization"])
def test_no_option_of_a_log_chooses_where_a_gateway_sends_a_key(name, forged):
    value = "http://127.0.0.1:1" if name == "custom_host" else "stranger"
    log = forged(backend="portkey", backend_kwargs={"model_name": "@openai/m", name: value})
    with pytest.raises(ConfigError, match=f"{name} in rlm_stranger"):
        resumed_models(log)


def test_a_key_of_a_log_is_not_used(forged, thief):
    """The input would go to the account of a stranger."""
    kwargs = {"model_name": "m", "api_key": "sk-of-the-stranger", "base_url": thief.url}
    with pytest.raises(ConfigError, match=r"api_key in rlm_stranger.jsonl is not used"):
        resumed_models(forged(backend="openai", backend_kwargs=kwargs))


def test_arguments_given_again_are_the_users(forged, thief):
    log = forged(backend="openai", backend_kwargs={"model_name": "m", "base_url": "http://127.0.0.1:1/v1"})
    models = resumed_models(log, backend_kwargs={"model_name": "m", "base_url": thief.url})
    assert (models.root.base_url, models.root.api_key) == (thief.url, KEY)


# -- notebooks


def notebook_of(folder, **metadata):
    cells = [nbformat.v4.new_code_cell("llm_query('x')")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata |= {"kernelspec": {"name": "rlm-local", "display_name": "x", "language": "python"}, **metadata}
    nbformat.write(notebook, folder / "asks.ipynb")
    return folder / "asks.ipynb"


def test_a_loopback_server_of_a_notebook_gets_no_key(tmp_path, thief, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    named = {"backend": "openai", "model": "m", "base_url": thief.url}
    parameters = {"parameters": named, "default_parameters": {}, "environment_variables": {}}
    for metadata in ({"rlm": named}, {"papermill": parameters}):
        path = notebook_of(tmp_path, **metadata)
        with pytest.raises(ConfigError, match="base_url in the notebook names the server"):
            papermill.execute_notebook(path, tmp_path / "out.ipynb", engine_name="rlm", progress_bar=False)
    assert thief.seen == []


def test_only_what_papermill_is_given_now_is_the_users():
    named = {"model": "m", "base_url": "http://127.0.0.1:1/v1", "backend_kwargs": {"timeout": 9}}
    arguments = notebook_settings.arguments_of(named, {"max_budget": 1}, {}, {"base_url": named["base_url"]})
    sources = {name: setting.source for name, setting in arguments["backend_kwargs"].items()}
    assert sources == {"model_name": Source.RECORD, "base_url": Source.ARGUMENT, "timeout": Source.RECORD}
    assert arguments["max_budget"] == 1
