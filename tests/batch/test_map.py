"""`RLM.map`: many completions in one process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel import errors
from rlm_kernel.api import RLM
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.types import Message, Reply, Usage

CELL = "```repl\nFINAL(context.upper())\n```"


def shout(_: Sequence[Message]) -> str:
    return CELL


def test_results_come_with_answers_usage_and_logs(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    results = list(RLM(ScriptedLM(shout)).map(["a", "b"], "What?", out=out))

    assert {result.id: result.answer for result in results} == {"1": "A", "2": "B"}
    assert all(result.completion is not None and result.usage.total_calls == 1 for result in results)
    assert all(Path(str(result.log)).is_file() for result in results)
    assert [json.loads(line)["answer"] for line in out.read_text().splitlines()] == ["A", "B"]


def test_results_in_the_order_of_the_tasks_on_demand() -> None:
    lm = ScriptedLM(lambda messages: CELL, delay=0.0)
    results = RLM(lm).map([str(n) for n in range(12)], "What?", ordered=True, max_concurrent=4)

    assert [result.answer for result in results] == [str(n) for n in range(12)]


def test_failures_stand_beside_answers_and_a_second_call_asks_only_them(tmp_path: Path) -> None:
    out, broken = tmp_path / "out.jsonl", True

    def script(messages: Sequence[Message]) -> str | BaseException:
        if broken and "unlucky" in str(messages):
            return errors.LMError("the provider is down", backend="scripted", model="scripted")
        return CELL

    tasks = [{"id": "good", "context": "ab"}, {"id": "bad", "context": "unlucky"}]
    first = {result.id: result for result in RLM(ScriptedLM(script)).map(tasks, "What?", out=out)}
    broken = False
    lm = ScriptedLM(script)
    second = {result.id: result for result in RLM(lm).map(tasks, "What?", out=out)}

    assert first["good"].answer == second["good"].answer == "AB"
    assert str(first["bad"].error).startswith("LMError: the provider is down")
    assert second["bad"].answer == "UNLUCKY"
    assert len(lm.calls) == 1
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["good", "bad"]


def test_what_a_failed_task_cost_is_in_its_result() -> None:
    def script(messages: Sequence[Message]) -> Reply | BaseException:
        if len(messages) > 2:
            return errors.LMError("the provider is down", backend="scripted", model="scripted", requests=0)
        return Reply("```repl\nllm_query('about it')\n```", "scripted", Usage(10, 10, cost=0.25))

    (result,) = RLM(ScriptedLM(script)).map(["a"], "What?")

    assert str(result.error).startswith("LMError")
    assert (result.cost, result.usage.total_calls) == (0.5, 2)


def test_a_changed_question_is_asked_again(tmp_path: Path) -> None:
    out, lm = tmp_path / "out.jsonl", ScriptedLM(shout)
    for question in ("What?", "What?", "Who?"):
        list(RLM(lm).map(["a"], question, out=out))

    assert len(lm.calls) == 2
    assert len(out.read_text().splitlines()) == 1


def test_one_budget_holds_over_all_tasks(tmp_path: Path) -> None:
    def script(_: Sequence[Message]) -> Reply:
        return Reply(CELL, "scripted", Usage(10, 10, cost=0.25))

    out = tmp_path / "out.jsonl"
    with pytest.raises(errors.BudgetExceededError):
        list(RLM(ScriptedLM(script)).map([str(n) for n in range(50)], "What?", out=out, max_budget=1.0))

    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert sum(result["answer"] is not None for result in results) == 4
    assert sum(result["cost"] for result in results) == pytest.approx(1.0)


def test_a_wrong_key_ends_the_batch_after_the_tasks_in_progress() -> None:
    lm = ScriptedLM(lambda _: errors.LMError("no such key", backend="scripted", model="scripted", status=401))
    seen = []
    with pytest.raises(errors.LMError, match="no such key"):
        seen += list(RLM(lm).map([str(n) for n in range(100)], "What?", max_concurrent=2))

    assert len(lm.calls) == 2


def test_leaving_the_loop_stops_what_is_in_progress() -> None:
    lm = ScriptedLM(shout, delay=0.05)
    for result in RLM(lm).map([str(n) for n in range(1000)], "What?", max_concurrent=2):
        assert result.answer is not None
        break
    asked = len(lm.calls)
    time.sleep(0.2)

    assert len(lm.calls) == asked < 20


async def test_amap_is_for_asynchronous_callers() -> None:
    found = [result.answer async for result in RLM(ScriptedLM(shout)).amap(["a", "b"], "What?", ordered=True)]

    assert found == ["A", "B"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_concurrent": 0}, "max_concurrent=0"),
        ({"tokens_per_minute": -1}, "tokens_per_minute=-1"),
        ({"max_concurent": 4}, "did you mean 'max_concurrent'"),
        ({"sample": 0}, "sample=0"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_starts(options: Any, message: str) -> None:
    with pytest.raises(errors.ConfigError, match=message):
        RLM(ScriptedLM(shout)).map(["a"], "What?", **options)


def test_a_persistent_rlm_has_one_kernel_and_is_refused() -> None:
    with (
        RLM(ScriptedLM(shout), persistent=True) as rlm,
        pytest.raises(errors.ConfigError, match="leave out persistent"),
    ):
        rlm.map(["a"], "What?")


KILLED = """
import pathlib, sys
from rlm import RLM, ScriptedLM

asked = pathlib.Path(sys.argv[1])

def script(messages):
    last = str(messages[-1]["content"])
    if last.startswith("about"):
        with asked.open("a") as file:
            print(last, file=file)
        return "word"
    ask = "```repl\\nfound = llm_query('about ' + context)\\nprint(found)\\n```"
    return "FINAL_VAR(found)" if "word" in last else ask

tasks = [f"text {n}" for n in range(8)]
for result in RLM(ScriptedLM(script, delay=0.05)).map(tasks, "What?", out=sys.argv[2], max_concurrent=3):
    print(result.id, result.answer, result.error, flush=True)
"""


def answered(logs: Path) -> set[str]:
    """The prompts of sub-calls that have an answer in a log."""
    found: set[str] = set()
    for log in logs.glob("*.events.jsonl"):
        with contextlib.suppress(errors.RecordingError):  # killed before its first line
            cells = read_log(log).trajectory.cells
            found |= {call.started.prompts[place] for cell in cells for call in cell.calls for place in call.answers}
    return found


def test_a_batch_that_is_killed_goes_on_and_repeats_no_recorded_call(tmp_path: Path) -> None:
    asked, out = tmp_path / "asked", tmp_path / "out.jsonl"
    command = [sys.executable, "-c", KILLED, str(asked), str(out)]
    for lines in (1, 2, 4):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        recorded, before = answered(tmp_path / "out_logs"), Counter(asked.read_text().splitlines())
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)

    after = Counter(asked.read_text().splitlines())
    assert recorded
    assert {text: after[text] for text in recorded} == {text: before[text] for text in recorded}
    assert len(done.stdout.splitlines()) == 8
    assert [json.loads(line)["answer"] for line in out.read_text().splitlines()] == ["word"] * 8


async def test_cancelling_the_caller_stops_the_runs() -> None:
    lm = ScriptedLM(shout, delay=0.05)

    async def consume() -> None:
        async for _ in RLM(lm).amap([str(n) for n in range(1000)], "What?", max_concurrent=2):
            pass

    task = asyncio.ensure_future(consume())
    while len(lm.calls) < 4:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task})
    asked = len(lm.calls)
    await asyncio.sleep(0.2)

    assert len(lm.calls) == asked
