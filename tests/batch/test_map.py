"""`RLM.map`: many completions in one process."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rlm_kernel import errors
from rlm_kernel.api import RLM
from rlm_kernel.batch.tasks import Task, Tasks
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.trajectory.log.file_names import RECORD, file_beside
from rlm_kernel.trajectory.log.logger import RLMLogger
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
    with pytest.raises(errors.BudgetExceededError, match="The batch cost .*max_budget of map, or --max-total-budget,"):
        list(RLM(ScriptedLM(script)).map([str(n) for n in range(50)], "What?", out=out, max_budget=1.0))

    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert sum(result["answer"] is not None for result in results) == 4
    assert sum(result["cost"] for result in results) == pytest.approx(1.0)


def test_results_of_other_tasks_in_the_file_are_kept_and_reported(tmp_path: Path) -> None:
    out, rlm = tmp_path / "out.jsonl", RLM(ScriptedLM(shout))
    tasks = [{"id": name, "context": name} for name in "abc"]
    list(rlm.map(tasks, "What?", out=out))
    list(rlm.map(tasks, "What?", out=out, sample=1))  # the others are left out, and not foreign
    with pytest.warns(UserWarning, match="also holds 2 results of other tasks"):
        list(rlm.map(tasks[:1], "What?", out=out))

    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["a", "b", "c"]


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
        ({"sample": "3"}, "sample='3' must be a whole number"),
        ({"sample": 2.5}, "sample=2.5 must be a whole number"),
        ({"max_tokens": True}, "max_tokens=True"),
        ({"out": ""}, "out='' must be the name of a file"),
        ({"out": "answers.csv"}, "out='answers.csv' must end in .jsonl"),
        ({"seed": 1}, "seed=1 is that of the sample"),
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


def test_a_run_that_the_budget_of_the_batch_has_ended_goes_on_without_its_recorded_calls(tmp_path: Path) -> None:
    asked: list[str] = []

    def script(messages: Sequence[Message]) -> Reply:
        last = str(messages[-1]["content"])
        asked.append("sub" if last.startswith("about") else "root")
        ask = "```repl\nprint(llm_query('about ' + context))\n```"
        answer = "word" if asked[-1] == "sub" else "FINAL(done)" if "word" in last else ask
        return Reply(answer, "scripted", Usage(10, 10, cost=0.25))

    out = tmp_path / "out.jsonl"
    with pytest.raises(errors.BudgetExceededError):
        list(RLM(ScriptedLM(script)).map(["a"], "What?", out=out, max_budget=0.4))
    (result,) = RLM(ScriptedLM(script)).map(["a"], "What?", out=out, max_budget=2.0)

    assert result.answer == "done"
    assert asked == ["root", "sub", "root"]


def paid(_: Sequence[Message]) -> Reply:
    return Reply(CELL, "scripted", Usage(10, 10, cost=0.25))


def test_tasks_whose_ids_are_alike_as_names_of_files_have_logs_of_their_own(tmp_path: Path) -> None:
    tasks = [{"id": name, "context": "x"} for name in ("日本", "中国", "a/b", "a b", "x" * 50, "x" * 51)]
    lm = ScriptedLM(paid)
    for given in (tasks[::2], tasks):
        results = list(RLM(lm).map(given, "What?", out=tmp_path / "o.jsonl"))

    assert len(lm.calls) == len({result.log for result in results}) == 6
    assert sum(result.cost or 0 for result in results) == 1.5


@pytest.mark.parametrize("outs", [("a.jsonl", "b.jsonl"), (None, None)])
def test_a_run_in_a_folder_of_logs_answers_no_other_batch(tmp_path: Path, outs: Sequence[str | None]) -> None:
    lm = ScriptedLM(paid)
    for name in outs:
        out = None if name is None else tmp_path / name
        list(RLM(lm).map(["q"], "What?", out=out, log_dir=tmp_path / "logs"))

    assert len(lm.calls) == 2


def test_a_run_that_ended_before_its_result_was_written_is_taken_from_its_log(tmp_path: Path) -> None:
    (before, after), lm = (tmp_path / "before", tmp_path / "after"), ScriptedLM(paid)
    list(RLM(lm).map(["q"], "What?", out=before / "o.jsonl"))
    (before / "o.jsonl").write_bytes(b"")
    before.rename(after)
    (result,) = RLM(lm).map(["q"], "What?", out=after / "o.jsonl")

    assert (result.answer, result.cost, len(lm.calls)) == ("Q", 0.25, 1)


def paid_turns(_: Sequence[Message]) -> Reply:
    return Reply("```repl\nprint('not yet')\n```", "scripted", Usage(10, 10, cost=0.25))


def test_what_failed_runs_cost_counts_for_the_budget_of_the_batch(tmp_path: Path) -> None:
    lm, out = ScriptedLM(paid_turns), tmp_path / "o.jsonl"
    (first,) = RLM(lm, max_budget=0.5).map(["q"], "What?", out=out, max_budget=0.6)
    for _ in range(2):
        with pytest.raises(errors.BudgetExceededError):
            list(RLM(lm, max_budget=0.5).map(["q"], "What?", out=out, max_budget=0.6))

    (line,) = map(json.loads, out.read_text().splitlines())
    assert (first.cost, line["cost"], len(lm.calls)) == (0.5, 0.75, 3)


def test_a_run_that_goes_on_costs_its_recorded_calls_once(tmp_path: Path) -> None:
    out, is_down = tmp_path / "o.jsonl", True

    def script(messages: Sequence[Message]) -> Reply | BaseException:
        if len(messages) <= 2:
            return Reply("```repl\nx = 1\nprint(x)\n```", "scripted", Usage(10, 10, cost=0.25))
        down = errors.LMError("the provider is down", backend="scripted", model="scripted", requests=0)
        return down if is_down else paid(messages)

    lm = ScriptedLM(script)
    (failed,) = RLM(lm).map(["q"], "What?", out=out)
    is_down = False
    (result,) = RLM(lm).map(["q"], "What?", out=out, max_budget=0.6)

    assert (failed.cost, result.cost, result.answer) == (0.25, 0.5, "Q")


def test_the_answers_to_earlier_questions_of_a_task_stay_in_its_cost(tmp_path: Path) -> None:
    lm = ScriptedLM(paid)
    costs = [
        result.cost
        for question in ("What?", "Who?", "What?")
        for result in RLM(lm).map(["q"], question, out=tmp_path / "o.jsonl")
    ]

    assert (costs, len(lm.calls)) == ([0.25, 0.5, 0.5], 2)


def test_room_for_more_tasks_than_there_are_costs_nothing() -> None:
    waiting: list[int] = []

    def read() -> Iterator[Task]:
        waiting.append(len(asyncio.all_tasks()))
        yield from (Task("a", "What?", "a"), Task("b", "What?", "b"))

    assert len(list(RLM(ScriptedLM(shout)).map(Tasks(("a", "b"), read), max_concurrent=5000))) == 2
    assert max(waiting) < 1000


class OwnLogger:
    """Keeps the turns of one run, as loggers of the reference do."""

    def __init__(self) -> None:
        self.turns: list[Any] = []

    def clear_iterations(self) -> None:
        self.turns = []

    def log(self, iteration: Any) -> None:
        self.turns.append(iteration.response)

    def get_trajectory(self) -> Any:
        return {"turns": self.turns}


def test_a_logger_of_the_user_gets_the_turns_of_one_run_at_a_time() -> None:
    results = RLM(ScriptedLM(shout), logger=OwnLogger()).map(["a", "b"], "What?", max_concurrent=1)

    assert [result.completion.metadata for result in results if result.completion] == [{"turns": [CELL]}] * 2


def test_a_logger_that_keeps_one_run_is_refused_for_several_at_a_time() -> None:
    with pytest.raises(errors.ConfigError, match="OwnLogger keeps one run at a time.*give max_concurrent=1"):
        RLM(ScriptedLM(shout), logger=OwnLogger()).map(["a"], "What?")


def test_a_logger_that_keeps_nothing_gets_the_turns_of_all_runs() -> None:
    class Printer:
        seen: ClassVar[list[str]] = []

        def log(self, iteration: Any) -> None:
            self.seen.append(iteration.response)

    assert len(list(RLM(ScriptedLM(shout), logger=Printer()).map(["a", "b", "c"], "What?"))) == 3
    assert Printer.seen == [CELL] * 3


def test_the_folder_of_the_rlms_logger_is_that_of_the_logs(tmp_path: Path) -> None:
    rlm = RLM(ScriptedLM(shout), logger=RLMLogger(tmp_path / "mine"))
    for out in (None, tmp_path / "out.jsonl"):
        (result,) = rlm.map(["a"], "What?", out=out)
        assert Path(str(result.log)).parent == tmp_path / "mine"


def test_a_result_and_a_log_whose_last_lines_were_cut_lose_only_these(tmp_path: Path) -> None:
    asked: list[str] = []

    def script(messages: Sequence[Message]) -> str:
        last = str(messages[-1]["content"])
        asked.append("sub" if last.startswith("about") else "root")
        ask = "```repl\nprint(llm_query('about ' + context))\n```"
        return "word" if asked[-1] == "sub" else "FINAL(done)" if "word" in last else ask

    out = tmp_path / "out.jsonl"
    (first,) = RLM(ScriptedLM(script)).map(["a"], "What?", out=out)
    log = file_beside(Path(str(first.log)), RECORD)
    lines = log.read_bytes().splitlines(keepends=True)
    answered = next(number for number, line in enumerate(lines) if json.loads(line)["type"] == "answer")
    log.write_bytes(b"".join(lines[: answered + 1]) + lines[answered + 1][:20])
    out.write_bytes(out.read_bytes()[:40])
    (second,) = RLM(ScriptedLM(script)).map(["a"], "What?", out=out)

    assert second.answer == "done"
    assert asked == ["root", "sub", "root", "root"]
    assert [json.loads(line)["answer"] for line in out.read_text().splitlines()] == ["done"]


def test_ctrl_c_does_not_wait_for_connections_that_close_slowly() -> None:
    release = threading.Event()

    class Slow(ScriptedLM):
        async def close(self) -> None:
            await asyncio.to_thread(release.wait)

    rlm = RLM(ScriptedLM(shout))
    rlm._ours = (Slow(shout),)
    try:
        with pytest.raises(KeyboardInterrupt), rlm:
            raise KeyboardInterrupt
    finally:
        release.set()


def test_a_result_is_in_the_file_before_the_caller_takes_it(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    results = RLM(ScriptedLM(shout)).map(["a", "b", "c"], "What?", out=out)
    next(results)
    deadline = time.monotonic() + 30
    while len(out.read_text().splitlines()) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)

    assert len(out.read_text().splitlines()) == 3
    results.close()
