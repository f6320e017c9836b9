"""A budget that cannot count a model says so when the RLM is made, and not when it can."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rlm import RLM, ScriptedLM

KEY = {"api_key": "k"}
UNKNOWN = {"model_name": "nobody-knows-this-model", **KEY}
PRICES = {"prices": {"input": 1, "output": 2}}
ELSEWHERE = {"base_url": "https://models.example/v1"}


@pytest.mark.parametrize(
    ("backend", "kwargs"),
    [
        ("openai", UNKNOWN),
        ("openai", {"model_name": "gpt-5-mini", **KEY, **ELSEWHERE}),
        ("anthropic", UNKNOWN),
        ("gemini", UNKNOWN),
        ("vllm", {"model_name": "m", **ELSEWHERE}),
    ],
)
def test_a_budget_for_a_model_without_a_price_warns_where_the_rlm_is_made(backend, kwargs):
    with pytest.warns(UserWarning, match=r"max_budget does not count it.*'prices'") as warned:
        RLM(backend, kwargs, max_budget=1.0)
    (warning,) = warned
    assert kwargs["model_name"] in str(warning.message)
    assert warning.filename == __file__


@pytest.mark.parametrize(
    ("backend", "kwargs"),
    [
        ("openai", {"model_name": "gpt-5-mini", **KEY}),
        ("openai", {**UNKNOWN, **PRICES}),
        ("anthropic", {"model_name": "claude-sonnet-4-5", **KEY}),
        ("gemini", {"model_name": "gemini-2.5-flash", **KEY}),
        ("vllm", {"model_name": "m", "base_url": "http://localhost:8000/v1"}),
        ("ollama", {"model_name": "m"}),
        ("openrouter", UNKNOWN),
        ("azure_openai", {"model_name": "our-deployment", "base_url": "https://us.openai.azure.com", **KEY}),
        (ScriptedLM([]), None),
    ],
)
def test_a_budget_for_a_model_whose_cost_is_known_or_comes_with_the_reply_is_silent(backend, kwargs):
    RLM(backend, kwargs, max_budget=1.0)


def test_models_of_sub_calls_are_looked_at_too_each_once():
    others = {"other_backends": ["openai", "openai"], "other_backend_kwargs": [UNKNOWN, UNKNOWN]}
    with pytest.warns(UserWarning, match="nobody-knows-this-model") as warned:
        RLM("openai", {"model_name": "gpt-5-mini", **KEY}, **others, max_budget=1.0)
    assert len(warned) == 1


def test_without_a_budget_no_price_is_looked_up():
    code = (
        "import sys; from rlm import RLM\n"
        "RLM('openai', {'model_name': 'gpt-5-mini', 'api_key': 'k'})\n"
        "print('genai_prices' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
