"""Every argument is checked when the RLM is made, before anything starts."""

from __future__ import annotations

import pickle
import sys

import pytest

from rlm import LM, RLM, AgentRLM, ConfigError, PromptProfile, ScriptedLM
from rlm_kernel.engine.argument_checks import keys_of
from rlm_kernel.prompts import PROFILES
from rlm_kernel.provisioners.kernelspecs import Environment

LM_ = ScriptedLM([])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"backend": "opnai"}, ["opnai", "did you mean 'openai'"]),
        ({"backend": "openai"}, ["model_name"]),
        ({"backend": "openai", "backend_kwargs": {"model_name": "m"}}, ["OPENAI_API_KEY", "api_key", ".env"]),
        ({"backend": "openai", "backend_kwargs": {"model_name": "m", "temprature": 0}}, ["temprature", "Allowed"]),
        ({"backend": "anthropic"}, ["model_name", "claude-sonnet"]),
        ({"backend": "anthropic", "backend_kwargs": {"model_name": "m"}}, ["ANTHROPIC_API_KEY", "api_key", ".env"]),
        ({"backend": "openrouter", "backend_kwargs": {"model_name": "m"}}, ["OPENROUTER_API_KEY"]),
        ({"backend": "portkey", "backend_kwargs": {"model_name": "m"}}, ["PORTKEY_API_KEY"]),
        ({"backend": "gemini", "backend_kwargs": {"model_name": "m"}}, ["GEMINI_API_KEY"]),
        ({"backend": "vllm", "backend_kwargs": {"model_name": "m"}}, ["'base_url'", "http://localhost:8000/v1"]),
        ({"backend": "azure_openai", "backend_kwargs": {"model_name": "m"}}, ["base_url", "AZURE_OPENAI_ENDPOINT"]),
        (
            {"backend": "openai", "backend_kwargs": {"model_name": "m", "api_key": "k", "prices": {}}},
            ["prices", "'output'"],
        ),
        ({"backend": 5}, ["name of a backend or an LM"]),
        ({"backend": LM_, "backend_kwargs": {"model_name": "m"}}, ["LM object"]),
        ({"environment": "lokal"}, ["lokal", "'local'", "'docker'"]),
        ({"environment_kwargs": {"image": "x"}}, ["image", "setup_code", "cell_timeout", "env", "cwd", "memory"]),
        ({"environment_kwargs": {"cell_timeout": -1}}, ["cell_timeout", "greater than 0"]),
        ({"environment_kwargs": {"cell_timeout": "5"}}, ["number of seconds"]),
        ({"environment_kwargs": {"setup_code": 5}}, ["setup_code", "Python code"]),
        ({"environment_kwargs": {"memory": "lots"}}, ["memory", "'2g'"]),
        ({"environment_kwargs": {"cwd": "/nonexistent"}}, ["cwd", "not a directory"]),
        ({"environment_kwargs": {"env": {"A": 1}}}, ["env"]),
        ({"max_iterations": 0}, ["max_iterations", "1 or more"]),
        ({"max_iterations": 2.5}, ["max_iterations", "whole number"]),
        ({"depth": -1}, ["depth"]),
        ({"max_budget": 0}, ["max_budget", "above 0"]),
        ({"max_timeout": "60"}, ["max_timeout", "above 0"]),
        ({"max_tokens": 1.5}, ["max_tokens", "1 or more"]),
        ({"max_errors": True}, ["max_errors", "1 or more"]),
        ({"max_concurrent_queries": 0}, ["max_concurrent_queries"]),
        ({"compaction_threshold_pct": 85}, ["compaction_threshold_pct", "between 0 and 1"]),
        ({"compaction_threshold_pct": "0.8"}, ["compaction_threshold_pct", "between 0 and 1"]),
        ({"custom_system_prompt": 5}, ["custom_system_prompt", "str or None"]),
        ({"other_backends": [LM_], "other_backend_kwargs": [{}, {}]}, ["1 entries", "other_backend_kwargs 2"]),
        ({"orchestrator": "no"}, ["orchestrator", "True, False or None"]),
        ({"on_iteration_start": 5}, ["on_iteration_start", "a function or None"]),
        ({"on_subcall_complete": "print"}, ["on_subcall_complete", "a function or None"]),
        ({"on_cell": 5}, ["on_cell", "function"]),
        ({"environment_kwargs": {"setup_code": "def f(:"}}, ["setup_code", "not Python"]),
        ({"prompts": "medium"}, ["'large'", "'small'", "PromptProfile"]),
    ],
)
def test_a_wrong_argument_names_what_is_allowed(arguments, words):
    with pytest.raises(ConfigError) as raised:
        RLM(**{"backend": LM_, **arguments})
    assert isinstance(raised.value, ValueError)
    assert [word for word in words if word not in str(raised.value)] == []


def test_setup_code_may_have_magics_and_await():
    for code in ("%pip list\nx = 1", "!ls", "files = !ls", "await f()", "x = 1"):
        RLM(LM_, environment_kwargs={"setup_code": code})


def test_an_object_of_a_class_of_the_script_is_no_tool(monkeypatch):
    Search = type("Search", (), {"__module__": "__main__"})  # noqa: N806 (it is a class)
    monkeypatch.setattr(sys.modules["__main__"], "Search", Search, raising=False)
    with pytest.raises(ConfigError, match=r"custom_tools\['t'\].*Search is part of the script.*Give a function"):
        RLM(LM_, custom_tools={"t": [Search()]})


def test_none_and_empty_values_count_as_not_given():
    RLM(LM_, max_budget=None, custom_tools={}, other_backends=[], environment_kwargs={"memory": None}, logger=None)


def test_a_profile_of_ones_own_is_used():
    lm = ScriptedLM(["```repl\nFINAL(1)\n```"])
    RLM(lm, prompts=PromptProfile(name="mine", system="be brief", reply_tokens=77)).completion("x")
    assert lm.calls[0].messages[0]["content"] == "be brief"
    assert lm.calls[0].max_tokens == 77


def test_the_key_of_a_dotenv_file_is_found_and_os_environ_stays(tmp_path, monkeypatch, provider):
    import os

    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY=from-dotenv\nOPENAI_BASE_URL={provider.base_url}\n")
    provider.script = ["```repl\nFINAL(1)\n```"]
    with RLM(backend_kwargs={"model_name": "m"}) as rlm:
        assert rlm.completion("x").response == "1"
    assert "OPENAI_API_KEY" not in os.environ
    assert "from-dotenv" in str(provider.requests[0].headers)


def test_repr_shows_the_model_and_no_key(monkeypatch):
    rlm = RLM(backend_kwargs={"model_name": "gpt-5-mini", "api_key": "sk-secret"})
    assert "gpt-5-mini" in repr(rlm)
    assert "sk-secret" not in repr(rlm)


def test_the_test_double_is_a_model():
    lm: LM = ScriptedLM([])
    assert lm.backend == "scripted"


@pytest.mark.parametrize(
    ("prompt", "do"),
    [
        (None, "the question itself"),
        ((piece for piece in "x"), "list(value)"),
        ({1, 2}, "list(value)"),
        (5, "give str(value)"),
    ],
)
def test_a_prompt_of_another_kind_says_how_to_convert_it(prompt, do):
    with pytest.raises(ConfigError) as raised:
        RLM(LM_).completion(prompt)
    assert do in str(raised.value)


def test_a_plain_completion_takes_only_what_json_can_hold():
    with pytest.raises(ConfigError, match="as JSON: keys must be str.*Make it a str"):
        RLM(LM_, max_depth=0).completion({(1, 2): "a"})


def test_a_question_is_text():
    with pytest.raises(ConfigError, match="root_prompt must be str or None, not int"):
        RLM(LM_).completion("x", 5)


def test_a_model_that_lacks_something_is_told_what_an_lm_has():
    class Half:
        model = "half"

        async def complete(self, messages): ...

    with pytest.raises(ConfigError, match="Half lacks backend, context_window: an LM has backend, model, context_w"):
        RLM(Half())


def test_an_rlm_cannot_be_pickled_and_says_what_to_do():
    with pytest.raises(TypeError, match="make the RLM in the process that uses it"):
        pickle.dumps(RLM(LM_))


def test_a_package_that_the_kernel_lacks_is_named():
    missing = "ModuleNotFoundError: No module named 'pandas.core'"
    docker, local = Environment("docker", "rlm-docker", {}), Environment("local", "rlm-local", {})
    assert "environment_kwargs={'packages': ['pandas']}" in docker.how_to_read(missing)
    assert local.how_to_read(missing).startswith("Install pandas where the kernel runs")
    assert local.how_to_read("ValueError: x") == "Give what you need of it as text, numbers, lists and dicts."


def test_a_key_that_a_model_finds_later_is_known_as_a_secret_before():
    lm = ScriptedLM([])
    lm.env = {"TOGETHERAI_API_KEY": "tg-secret-123456", "PATH": "/bin"}
    assert keys_of(RLM(lm).config) == {"tg-secret-123456"}


def test_the_keys_of_every_model_are_known_as_secrets():
    named = RLM(backend="openai", backend_kwargs={"model_name": "m", "api_key": "sk-named-0123456"})
    assert keys_of(named.config) == {"sk-named-0123456"}

    class Own:
        backend, model, context_window, api_key = "own", "m", None, "sk-own-0123456"

        async def complete(self, messages, *, max_tokens=None, on_text=None): ...

    assert keys_of(RLM(Own()).config) == {"sk-own-0123456"}


def test_the_arguments_are_attributes():
    rlm = RLM(ScriptedLM("x"), max_depth=2, max_iterations=7, environment_kwargs={"cell_timeout": 5})
    assert (rlm.max_depth, rlm.max_iterations, rlm.logger, rlm.verbose) == (2, 7, None, False)
    assert (rlm.environment_type, rlm.environment_kwargs) == ("local", {"cell_timeout": 5})
    assert rlm.system_prompt == PROFILES["large"].system
    assert RLM(ScriptedLM("x"), custom_system_prompt="mine").system_prompt == "mine"
    assert "max_depth" in dir(rlm)
    assert not hasattr(rlm, "no_argument")


def test_an_assignment_without_effect_raises():
    rlm = RLM(ScriptedLM("x"))
    with pytest.raises(AttributeError, match="max_depth is read when the RLM is made.*make a new RLM with it"):
        rlm.max_depth = 3
    with pytest.raises(AttributeError, match="system_prompt"):
        rlm.system_prompt = "other"
    rlm.verbose = True
    with pytest.raises(ConfigError, match="logger must"):
        rlm.logger = "no logger"


@pytest.mark.parametrize("kind", [RLM, AgentRLM])
def test_an_unknown_attribute_is_refused_with_a_suggestion(kind):
    with kind(ScriptedLM([])) as rlm:
        with pytest.raises(AttributeError, match="no attribute 'max_iteration'.*Did you mean 'max_iterations'"):
            rlm.max_iteration = 3
        with pytest.raises(AttributeError, match="mine"):
            rlm.mine = 1
        rlm._mine = 1


def test_a_subclass_of_a_user_may_have_attributes_of_its_own():
    class Mine(RLM):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.asked = 0

    mine = Mine(ScriptedLM([]))
    mine.asked += 1
    assert mine.asked == 1


def test_a_dict_among_the_arguments_is_a_read_only_view():
    kwargs = {"model_name": "m", "api_key": "k"}
    rlm = RLM("openai", kwargs)
    assert rlm.backend_kwargs == kwargs
    with pytest.raises(TypeError, match="item assignment"):
        rlm.backend_kwargs["model_name"] = "other"
