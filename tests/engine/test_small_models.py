"""A small model whose prompts nobody has chosen gets those for small models."""

from __future__ import annotations

import pytest
from loopback import LoopbackProvider

from rlm import RLM
from rlm.logger import RLMLogger
from rlm_kernel.clients.model_size import parameters_in_name
from rlm_kernel.prompts import LARGE, SMALL
from rlm_kernel.replay.replayer import replay
from rlm_kernel.trajectory.log.reader import read_log

WORDS = "The text has two lines."
CELL = "```repl\nprint(len(context.splitlines()), json.dumps([1]))\n```"  # the prompts for small models import json
OLD_CELL = "```repl\nprint(len(context.splitlines()))\n```"
SAYS_SMALL = [{"id": "alias", "meta": {"n_params": 1_777_088_000}}]
TEXT = "one\ntwo"


def answered(provider, script, models=(), **arguments):
    """A completion of a model behind `backend="openai"`."""
    provider.script, provider.models = script, list(models)
    kwargs = {**provider.backend_kwargs, "model_name": "alias"}
    with RLM("openai", kwargs, **arguments) as rlm:
        return rlm.completion(TEXT, "How many lines does the text have?")


def systems(provider):
    """The system message of each request."""
    return [request.messages[0]["content"] for request in provider.requests]


@pytest.mark.parametrize(
    ("models", "profile"),
    [
        pytest.param(SAYS_SMALL, SMALL, id="llama.cpp counts them"),
        pytest.param([{"id": "alias", "root": "Qwen/Qwen2.5-Coder-1.5B-Instruct"}], SMALL, id="vLLM names the model"),
        pytest.param([{"id": "alias", "root": "Qwen/Qwen2.5-72B-Instruct"}], LARGE, id="a large one"),
        pytest.param([{"id": "alias", "meta": {"n_params": "1"}}], LARGE, id="no number"),
        pytest.param([], LARGE, id="nothing"),
    ],
)
def test_a_model_whose_server_says_that_it_is_small_gets_the_prompts_for_small_models(provider, models, profile):
    assert answered(provider, [OLD_CELL, "FINAL(2)"], models).response == "2"
    assert [system.startswith(profile.system) for system in systems(provider)] == [True, True]


def test_a_first_reply_without_code_is_left_out_and_the_model_gets_the_prompts_for_small_models(provider, tmp_path):
    assert answered(provider, [WORDS, CELL, "FINAL(2)"], logger=RLMLogger(tmp_path)).response == "2"
    assert systems(provider) == [LARGE.system, SMALL.system, SMALL.system]
    assert WORDS not in str(provider.requests[1].messages)
    assert provider.requests[1].messages[-1]["content"].endswith("Question: How many lines does the text have?")
    assert "2 [1]" in provider.requests[2].messages[-1]["content"]
    (log,) = tmp_path.glob("*.events.jsonl")
    said = [message["content"] for message in read_log(log).trajectory.conversation()]
    assert [text for text in said if text in (LARGE.system, WORDS, SMALL.system, CELL)] == [
        LARGE.system, WORDS, SMALL.system, CELL,
    ]  # fmt: skip
    assert replay(log).equal


@pytest.mark.parametrize("models", [SAYS_SMALL, []], ids=["its server says it", "its first reply shows it"])
def test_a_resumed_run_has_the_prompts_that_it_had(tmp_path, models):
    with LoopbackProvider() as first, LoopbackProvider() as second:
        script = [*([] if models else [WORDS]), CELL, "```repl\nlater = 1\n```", "FINAL(2)"]
        answered(first, script, models, logger=RLMLogger(tmp_path))
        (log,) = tmp_path.glob("*.events.jsonl")
        second.script = ["FINAL(two)"]
        kwargs = {**second.backend_kwargs, "model_name": "alias"}
        completion = RLM.resume(log, at=len(script) - 1, backend="openai", backend_kwargs=kwargs)
        assert completion.response == "two"
        assert systems(second) == [SMALL.system]


def test_no_log_holds_a_part_of_a_key_where_the_second_preview_is_cut(provider, tmp_path):
    key = "sk-proj-0123456789abcdefghijklmnopqrstuvwxyz"
    provider.script = [WORDS, "FINAL(1)", "FINAL(1)"]
    kwargs = {**provider.backend_kwargs, "model_name": "alias", "api_key": key}
    with RLM("openai", kwargs, logger=RLMLogger(tmp_path)) as rlm:
        rlm.completion("x" * 130 + key, "How long is it?")
    assert key[:20] in provider.requests[1].messages[-1]["content"]
    (log,) = tmp_path.glob("*.events.jsonl")
    assert key[:20] not in log.read_text("utf-8")


@pytest.mark.parametrize("arguments", [{"prompts": "large"}, {"custom_system_prompt": "Answer by code."}])
@pytest.mark.parametrize("models", [SAYS_SMALL, []], ids=["small", "unknown"])
def test_prompts_that_were_chosen_stay(provider, arguments, models):
    assert answered(provider, [WORDS, OLD_CELL, "FINAL(2)"], models, **arguments).response == "2"
    assert len(set(systems(provider))) == 1
    assert "neither code nor an answer" in provider.requests[1].prompt


def test_a_model_that_is_known_to_be_large_keeps_its_prompts_after_words(provider):
    answered(provider, [WORDS, OLD_CELL, "FINAL(2)"], [{"id": "alias", "root": "Llama-3.1-70B"}])
    assert systems(provider) == [LARGE.system] * 3
    assert "neither code nor an answer" in provider.requests[1].prompt


def test_words_after_code_change_no_prompts(provider):
    answered(provider, [OLD_CELL, WORDS, "FINAL(2)"])
    assert systems(provider) == [LARGE.system] * 3


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("qwen2.5-coder:1.5b", 1.5),
        ("meta-llama/Llama-3.2-3B-Instruct", 3),
        ("gemma-3-270m-it", 0.27),
        ("smollm2-360m", 0.36),
        ("scout-10m", None),
        ("Qwen2.5-14B-Instruct-1M", 14),
        ("qwen3-30b-a3b", 30),
        ("mixtral-8x7b", None),
        ("gpt-4.1-mini", None),
        ("qwen-coder", None),
    ],
)
def test_the_size_in_a_name(name, billions):
    assert parameters_in_name(name) == (billions and billions * 1e9)
