"""The error tree."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle

import pytest

from rlm import RLM, ScriptedLM
from rlm_kernel import errors
from rlm_kernel._async import Job
from rlm_kernel.types import UsageSummary

MADE = (
    errors.RLMError("anything"),
    errors.ConfigError("an option"),
    errors.LimitError("a limit"),
    errors.BudgetExceededError(spent=2.0, budget=1.0),
    errors.TimeoutExceededError(elapsed=2.0, timeout=1.0),
    errors.TokenLimitExceededError(tokens_used=2, token_limit=1),
    errors.ErrorThresholdExceededError(error_count=3, threshold=3, last_error="1 / 0"),
    errors.AnswerSchemaError(model="m", problems=["no 'city'."], reply="Rome"),
    errors.NoAnswerError(model="m", turns=1, reply="```repl\n1\n```"),
    errors.AnswerCutError(partial_answer="It goes on"),
    errors.TurnLimitExceededError(max_messages=2),
    errors.RLMEnforcementError("not the environment of agents"),
    errors.CancellationError("a draft", "stopped"),
    errors.LMError("refused", backend="openai", model="m", status=429, request_id="r-1"),
    errors.ContextOverflowError("too long", backend="openai", model="m"),
    errors.NonAnswerError("cut", backend="openai", model="m", reason="length", partial_answer="It goes on"),
    errors.KernelError("died"),
    errors.RecordingError("no log"),
)


def family(kind):
    return {kind}.union(*map(family, kind.__subclasses__()))


def test_every_error_of_the_tree_is_made_here():
    ours = {kind for kind in family(errors.RLMError) if kind.__module__ == errors.__name__}
    assert {type(error) for error in MADE} == ours


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_an_error_leaves_a_process_with_all_it_holds(error, again):
    found = again(error)
    assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))


def test_what_the_engine_fills_in_is_kept():
    error = errors.BudgetExceededError(spent=2.0, budget=1.0)
    error.partial_answer, error.usage, error.trajectory = "a draft", UsageSummary(), {"iterations": []}
    found = pickle.loads(pickle.dumps(error))
    assert (found.partial_answer, found.usage, found.trajectory) == ("a draft", UsageSummary(), {"iterations": []})


def test_problems_that_end_with_a_full_stop_get_no_second_one():
    error = errors.AnswerSchemaError(model="m", problems=["It is no JSON (char 0)."], reply="Rome")
    assert "It is no JSON (char 0). Its last reply" in str(error)


async def test_a_job_that_is_only_awaited_to_its_end_leaves_no_error_behind():
    async def fails():
        raise errors.LMError("refused", backend="openai", model="m")

    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: told.append(about))
    job = Job(fails())
    await job.ended_async()
    gc.collect()
    assert told == []
    with pytest.raises(errors.LMError, match="refused"):
        await job.wait_async()


@pytest.mark.parametrize(
    ("error", "attributes", "message"),
    [
        (errors.BudgetExceededError(1.5, 1.0), {"spent": 1.5, "budget": 1.0}, "1.5"),
        (errors.BudgetExceededError(1.5, 1.0, "mine"), {}, "mine"),
        (errors.TimeoutExceededError(2.0, 1.0, "so far"), {"elapsed": 2.0, "partial_answer": "so far"}, "2.0 s"),
        (errors.TimeoutExceededError(2.0, 1.0, message="mine"), {"timeout": 1.0, "partial_answer": None}, "mine"),
        (errors.TokenLimitExceededError(9, 8, "so far"), {"tokens_used": 9, "partial_answer": "so far"}, "9 tokens"),
        (errors.ErrorThresholdExceededError(3, 2), {"error_count": 3, "last_error": None}, "3 cells in a row"),
        (errors.ErrorThresholdExceededError(3, 2, "E", "so far", "mine"), {"partial_answer": "so far"}, "mine"),
        (errors.CancellationError(), {"partial_answer": None}, "stopped by Ctrl-C"),
        (errors.CancellationError(partial_answer="so far", message="mine"), {"partial_answer": "so far"}, "mine"),
    ],
)
def test_the_errors_of_the_reference_are_made_as_there(error, attributes, message):
    assert message in str(error)
    assert {name: getattr(error, name) for name in attributes} == attributes


def test_a_notebook_shows_the_lines_of_the_user_and_the_message():
    with pytest.raises(errors.ConfigError) as caught:
        RLM(ScriptedLM([]), environment="nowhere")
    shown = caught.value._render_traceback_()
    assert 'RLM(ScriptedLM([]), environment="nowhere")' in shown[0]
    assert shown[1:] == [f"ConfigError: {caught.value}"]


def test_a_notebook_shows_where_code_of_the_user_failed_below_ours():
    def complete():
        try:
            return {}["no such key"]
        except KeyError as cause:
            raise errors.LMError("it failed", backend="mine", model="m") from cause

    with pytest.raises(errors.LMError) as caught:
        complete()
    shown = caught.value._render_traceback_()
    assert 'return {}["no such key"]' in shown[0]
    assert shown[1] == "KeyError('no such key')"
    assert shown[-1] == f"LMError: {caught.value}"
