"""What a run spent."""

from __future__ import annotations

import json

import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from rlm import RLM, ConfigError, LMError, ScriptedLM
from rlm_kernel.batch.results import TaskResult
from rlm_kernel.trajectory.log.iterations import RLMIteration
from rlm_kernel.types import ModelUsageSummary, RLMChatCompletion, Usage, UsageMeter, UsageSummary

COUNTS = st.integers(0, 10**9)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, st.none() | st.floats(0, 1000))
CALLS = st.lists(st.tuples(st.sampled_from(["root", "sub"]), USAGES))


def counted(calls):
    meter = UsageMeter()
    for model, usage in calls:
        meter.add(model, usage)
    return meter.summary()


@given(CALLS)
def test_the_totals_are_the_sums_over_all_calls(calls):
    summary = counted(calls)
    assert summary.total_calls == len(calls)
    assert summary.total_input_tokens == sum(usage.input_tokens for _, usage in calls)
    assert summary.total_output_tokens == sum(usage.output_tokens for _, usage in calls)


@given(CALLS)
def test_each_model_has_its_own_sums(calls):
    for name, sums in counted(calls).model_usage_summaries.items():
        own = [usage for model, usage in calls if model == name]
        assert sums.total_calls == len(own) > 0
        assert sums.total_cached_tokens == sum(usage.cached_tokens for usage in own)


@given(CALLS)
def test_the_cost_is_the_sum_of_the_models_whose_every_call_has_one(calls):
    costs = {}
    for model, usage in calls:
        costs.setdefault(model, []).append(usage.cost)
    known = [sum(some) for some in costs.values() if None not in some]
    assert counted(calls).total_cost == (pytest.approx(sum(known)) if known else None)
    assert set(counted(calls).unpriced_models) == {model for model, some in costs.items() if None in some}


@pytest.mark.parametrize("costs", [(0.5, None), (None, 0.5), (0.5, None, 0.5), (None, None)])
def test_an_unknown_cost_stays_unknown(costs):
    assert counted([("m", Usage(cost=cost)) for cost in costs]).total_cost is None


def test_a_call_that_was_free_costs_nothing():
    assert counted([("m", Usage(cost=0.0))]).total_cost == 0.0


def test_a_summary_does_not_change_when_the_run_goes_on():
    meter = UsageMeter()
    meter.add("m", Usage(1, 2))
    before = meter.summary()
    meter.add("m", Usage(1, 2))
    meter.add("n", Usage(1, 2))
    assert before == UsageSummary({"m": ModelUsageSummary(1, 1, 2)})


def test_a_summary_as_plain_data_has_the_documented_fields():
    summary = counted([("m", Usage(10, 2, 4)), ("m", Usage(1, 1))])
    assert summary.to_dict() == {
        "model_usage_summaries": {
            "m": {
                "total_calls": 2,
                "total_input_tokens": 11,
                "total_output_tokens": 3,
                "total_cached_tokens": 4,
            }
        }
    }


def test_a_known_cost_is_part_of_the_plain_data():
    data = counted([("m", Usage(cost=0.25)), ("n", Usage(cost=0.5))]).to_dict()
    assert data["total_cost"] == 0.75
    assert data["model_usage_summaries"]["m"]["total_cost"] == 0.25


def test_a_completion_as_plain_data_can_be_written_as_json():
    completion = RLMChatCompletion("m", ["a"], "42", counted([("m", Usage(1, 2))]), 0.5)
    assert json.loads(json.dumps(completion.to_dict()))["response"] == "42"


def test_the_input_does_not_flood_the_repr_of_a_completion():
    assert len(repr(RLMChatCompletion("m", "x" * 10**6, "42", UsageSummary(), 0.5))) < 300


def test_a_result_with_a_long_trajectory_has_a_short_repr():
    turns = {"run_metadata": {}, "iterations": [{"response": "x" * 10_000}] * 20}
    shown = repr(RLMChatCompletion("m", "p", "done " * 10_000, counted([("m", Usage(1, 2, cost=0.5))]), 0.5, turns))
    assert len(shown) < 500
    assert "metadata=<20 turns>" in shown
    assert "UsageSummary(1 model call · 1 tokens in, 2 out · $0.5000)" in shown
    assert "metadata=<0 turns>" in repr(RLMChatCompletion("m", "p", "r", UsageSummary(), 0.5, {"iterations": 3}))


def test_an_error_has_a_short_repr():
    assert len(repr(LMError("bad " * 5_000, backend="x", model="m"))) < 250
    assert repr(ConfigError("wrong")) == "ConfigError('wrong')"


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "**b** <img src=x onerror=alert(1)>"])
def test_results_usage_errors_and_an_rlm_are_shown_as_html_in_which_nothing_is_active(text):
    usage = counted([(text, Usage(1, 2))])
    failed = LMError(text, backend="x", model="m")
    failed.partial_answer, failed.run_usage = text, usage
    shown = [RLMChatCompletion(text, "p", text, usage, 0.5), usage, failed, TaskResult(text, text), RLM(ScriptedLM([]))]
    for one in shown:
        html = one._repr_html_()
        tags = BeautifulSoup(html, "html.parser").find_all()
        assert {tag.name for tag in tags} <= {
            "div",
            "span",
            "b",
            "p",
            "strong",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
        }
        assert {name for tag in tags for name in tag.attrs} <= {"style"}
        assert html.startswith("<div")
    assert "<strong>b</strong>" in RLMChatCompletion("m", "p", "**b**", usage, 0.5)._repr_html_()


def test_the_card_of_an_rlm_holds_no_key():
    rlm = RLM(backend_kwargs={"model_name": "gpt-x", "api_key": "sk-very-secret"})
    assert "gpt-x" in rlm._repr_html_()
    assert "secret" not in rlm._repr_html_() + repr(rlm)


def test_a_completion_is_read_back_from_plain_data():
    usage = UsageSummary({"m": ModelUsageSummary(1, 2, 3, total_cost=0.5), "free": ModelUsageSummary(1)})
    given = RLMChatCompletion("m", {"a": [1]}, "r", usage, 1.5, {"iterations": []}, error="late")
    data = json.loads(json.dumps(given.to_dict()))
    assert RLMChatCompletion.from_dict(data) == given
    assert (data["error"], data["usage_summary"]["unpriced_models"]) == ("late", ["free"])
    plain = RLMChatCompletion("m", "p", "r", UsageSummary(), 0.0).to_dict()
    assert plain.keys() == {"root_model", "prompt", "response", "usage_summary", "execution_time"}
    assert RLMChatCompletion.from_dict({"response": "only this"}).response == "only this"


def test_the_fourth_position_is_the_cost():
    summary = ModelUsageSummary(1, 2, 3, 0.5)
    assert (summary.total_cost, summary.total_cached_tokens) == (0.5, 0)
    used = Usage(2, 3, 1, 0.5, 4, 0.25)
    assert ModelUsageSummary.of(1, used).usage == used


@pytest.mark.parametrize(
    ("kind", "fields", "named"),
    [
        (ModelUsageSummary, {"total_calls": "3"}, "total_calls must be int"),
        (ModelUsageSummary, {"total_cost": "free"}, "total_cost must be float or int or None"),
        (ModelUsageSummary, [], "ModelUsageSummary.from_dict takes a dict, not list"),
        (UsageSummary, {"model_usage_summaries": [1]}, "model_usage_summaries must be dict"),
        (UsageSummary, {"model_usage_summaries": {"m": 1}}, "ModelUsageSummary.from_dict takes a dict, not int"),
        (RLMChatCompletion, {"usage_summary": 5}, "UsageSummary.from_dict takes a dict, not int"),
        (RLMChatCompletion, {"response": 5}, "response must be str or None"),
        (RLMIteration, 5, "RLMIteration.from_dict takes a dict, not int"),
        (RLMIteration, {"prompt": "p", "response": "r", "code_blocks": "x"}, "code_blocks must be list, not str"),
        (RLMChatCompletion, {"execution_time": "1"}, "execution_time must be float or int or None"),
    ],
)
def test_fields_of_wrong_types_are_refused_with_their_names(kind, fields, named):
    with pytest.raises(ValueError, match=named):
        kind.from_dict(fields)
