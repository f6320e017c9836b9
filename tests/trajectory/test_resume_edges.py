"""Where a run may have ended, or gone an unusual way: it goes on from there, and nothing is asked a second time."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest
from recorded_runs import record_file
from trajectory import runs

from rlm import RLM, BudgetExceededError, RecordingError, ScriptedLM, TimeoutExceededError
from rlm.logger import RLMLogger
from rlm_kernel.engine.recorded import recorded_run_of
from rlm_kernel.errors import ConfigError, ContextOverflowError
from rlm_kernel.replay.replayer import replay
from rlm_kernel.trajectory.log import reader
from rlm_kernel.trajectory.log.file_names import stem_of
from rlm_kernel.types import Reply, Usage

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 100

AT_REST = "import time; time.sleep(0.5)"
"""Where the interrupt of a limit finds a cell: ipykernel may send no reply for one that is just ending."""


def lines(log):
    return [json.loads(line) for line in Path(log).read_text().splitlines()]


def upper(messages):
    return messages[-1]["content"].upper()


def test_pictures_of_the_record_are_not_overwritten(tmp_path):
    logger = RLMLogger(tmp_path)
    code = f"a = llm_query('what?', images=[{PNG!r}])"
    lm = ScriptedLM([runs.cell(code), "a cat", "FINAL_VAR(a)"])
    RLM(lm, logger=logger).completion("c", "q")
    (picture,) = (tmp_path / "images").iterdir()
    assert RLM.resume(logger.log_file_path, backend=ScriptedLM([]), logger=logger).response == "a cat"
    assert picture.read_bytes() == PNG


def test_a_limit_in_the_middle_of_a_batch_is_gone_on_from_there(tmp_path):
    def priced(messages):
        return Reply(upper(messages), "sub", Usage(1, 1, cost=1.0))

    code = (
        f"marks = ['before']\na = llm_query_batched([f'q{{n}}' for n in range(12)])\n{AT_REST}\nmarks.append('after')"
    )
    first = ScriptedLM(priced, model="sub")
    logger = RLMLogger(tmp_path)
    root = ScriptedLM([Reply(runs.cell(code), "root", Usage(1, 1, cost=0.0))], model="root")
    with pytest.raises(BudgetExceededError):
        RLM(root, other_backends=[first], max_budget=5.0, logger=logger).completion("c", "q")
    assert len(first.calls) == 5
    second = ScriptedLM(priced, model="sub")
    rest = ScriptedLM([runs.cell("FINAL([marks, a])")], model="root")
    again = RLM.resume(logger.log_file_path, backend=rest, other_backends=[second], max_budget=50.0, logger=logger)
    assert again.response == str([["before", "after"], [f"Q{n}" for n in range(12)]])
    assert len(second.calls) == 7
    assert not {call.prompt for call in first.calls} & {call.prompt for call in second.calls}
    assert again.usage_summary.total_calls == 1 + 12 + 1
    assert replay(logger.log_file_path).equal


def test_a_limit_in_the_middle_of_children_is_gone_on_from_there(tmp_path):
    asked = []

    def priced(text):
        return Reply(text, "m", Usage(1, 1, cost=1.0))

    def sub(messages):
        if messages[0]["role"] == "system":
            ask = runs.cell("a = [llm_query(f'{context}, question {n}') for n in range(3)]")
            return priced(runs.cell("FINAL(a)") if runs.turn(messages) else ask)
        asked.append(messages[-1]["content"])
        return priced(messages[-1]["content"].upper())

    cell = runs.cell(f"r = rlm_query_batched([f'child {{n}}' for n in range(4)], model='sub')\n{AT_REST}")
    root = ScriptedLM([Reply(cell, "root", Usage(1, 1, cost=0.0))], model="root")
    logger = RLMLogger(tmp_path)
    with pytest.raises(BudgetExceededError):
        RLM(root, other_backends=[ScriptedLM(sub, model="sub")], max_budget=9.0, max_depth=2, logger=logger).completion(
            "c", "q"
        )
    rest = ScriptedLM(["FINAL_VAR(r)"], model="root")
    given = {"backend": rest, "other_backends": [ScriptedLM(sub, model="sub")], "max_budget": 99.0, "logger": logger}
    again = RLM.resume(logger.log_file_path, **given)
    assert again.response == str([str([f"CHILD {c}, QUESTION {n}" for n in range(3)]) for c in range(4)])
    assert sorted(asked) == [f"child {c}, question {n}" for c in range(4) for n in range(3)]
    assert replay(logger.log_file_path).equal


def test_a_run_that_a_busy_kernel_refused_is_not_in_its_chain(tmp_path):
    logger = RLMLogger(tmp_path)

    def leads(messages):
        if "the last one" in str(messages):
            return "FINAL_VAR(x)" if runs.turn(messages) else runs.cell("x = [context_0, context_1, y]")
        return runs.cell("y = 5; FINAL(y)")

    with RLM(ScriptedLM(leads), persistent=True, logger=logger) as rlm:

        async def both():
            first = asyncio.ensure_future(rlm.acompletion("first", "q"))
            await asyncio.sleep(0)
            second = asyncio.ensure_future(rlm.acompletion("second", "q"))
            return await asyncio.gather(first, second, return_exceptions=True)

        outcomes = asyncio.run(both())
        assert sorted(type(one).__name__ for one in outcomes) == ["RLMChatCompletion", "RLMError"]
        third = rlm.completion("third", "the last one")
    served = next(one for one in outcomes if not isinstance(one, Exception))
    assert third.response == str([served.prompt, "third", 5])
    report = replay(logger.log_file_path)
    assert report.equal, report
    assert RLM.resume(logger.log_file_path, backend=ScriptedLM([])).response == third.response


def test_a_cell_of_an_earlier_run_that_did_not_end_is_counted(tmp_path):
    logger = RLMLogger(tmp_path)
    sub = ScriptedLM(upper, model="sub")
    script = [
        runs.cell("x = 1"),
        runs.cell("import time; time.sleep(60)"),
        runs.cell("z = [x, llm_query('once')]"),
        "FINAL_VAR(z)",
    ]
    with RLM(ScriptedLM(script, model="root"), other_backends=[sub], persistent=True, logger=logger) as rlm:

        async def cut():
            running = asyncio.ensure_future(rlm.acompletion("first", "q"))
            while not (logs := list(tmp_path.glob("*.events.jsonl"))) or logs[0].read_text().count('"type":"cell"') < 2:
                await asyncio.sleep(0.01)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

        asyncio.run(cut())
        second = rlm.completion("second", "q")
    assert second.response == "[1, 'ONCE']"
    none = ScriptedLM([], model="sub")
    again = RLM.resume(logger.log_file_path, backend=ScriptedLM([], model="root"), other_backends=[none], logger=logger)
    assert again.response == second.response
    assert none.calls == []
    # The record of the fork says which runs were before it, too.
    assert RLM.resume(logger.log_file_path, backend=none, other_backends=[none]).response == second.response
    report = replay(logger.log_file_path)
    assert report.equal, report


def test_the_setup_of_a_persistent_kernel_asks_once(tmp_path):
    sub, none = ScriptedLM(upper, model="sub"), ScriptedLM([], model="sub")
    script = [runs.cell("x = known"), "FINAL(1)", runs.cell("__import__('os')._exit(1)"), "FINAL_VAR(x)"]
    logger, root = RLMLogger(tmp_path), ScriptedLM(script, model="root")
    options = {"setup_code": "known = llm_query('once')"}
    with RLM(root, other_backends=[sub], persistent=True, environment_kwargs=options, logger=logger) as rlm:
        rlm.completion("first", "q")
        second = rlm.completion("second", "q")
    assert second.response == "ONCE"
    assert [call.prompt for call in sub.calls] == ["once"]
    again = RLM.resume(logger.log_file_path, backend=ScriptedLM([], model="root"), other_backends=[none])
    assert (again.response, again.usage_summary) == (second.response, second.usage_summary)
    report = replay(logger.log_file_path)
    assert report.equal, report


def test_a_run_after_one_whose_context_is_a_pickle_names_that_one(tmp_path):
    logger = RLMLogger(tmp_path)
    with RLM(ScriptedLM(lambda _: runs.cell("FINAL(1)")), persistent=True, logger=logger) as rlm:
        rlm.completion({1: "a key that is no str"}, "q")
        first = record_file(logger)
        rlm.completion("second", "q")
    for given in ({}, {"prompt": "second"}):
        with pytest.raises(RecordingError, match=f"resume {first.name} with its prompt given again"):
            RLM.resume(logger.log_file_path, backend=ScriptedLM([]), **given)
    assert RLM.resume(first, backend=ScriptedLM([]), prompt={1: "a key that is no str"}).response == "1"


def test_a_chain_that_leads_to_itself_or_elsewhere_is_refused(tmp_path):
    logger = RLMLogger(tmp_path)
    RLM(ScriptedLM(["FINAL(1)", "FINAL(1)"]), logger=logger).completion("c", "q")
    log = record_file(logger)
    known = lines(log)
    for name in (log.stem, stem_of(log), "../elsewhere", 7):
        known[0]["continues"] = name
        log.write_text("".join(f"{json.dumps(line)}\n" for line in known))
        with pytest.raises(RecordingError, match="continues"):
            RLM.resume(log, backend=ScriptedLM([]))
        with pytest.raises(RecordingError, match="continues"):
            replay(log)


def test_a_run_before_that_never_began_is_passed_over_unless_it_hides_others(tmp_path):
    logger = RLMLogger(tmp_path)
    script = [runs.cell("x = 1; FINAL(x)"), runs.cell("FINAL(x)")]
    with RLM(ScriptedLM(script), persistent=True, logger=logger) as rlm:
        rlm.completion("first", "q")
        first = record_file(logger)
        rlm.completion("second", "q")
    (tmp_path / "empty.jsonl").touch()
    for log in (first, record_file(logger)):
        known = lines(log)
        known[0]["continues"] = "empty"
        log.write_text("".join(f"{json.dumps(line)}\n" for line in known))
    assert replay(first, trust=True).equal
    assert RLM.resume(first, backend=ScriptedLM([]), trust=True).response == "1"
    with pytest.raises(RecordingError, match=r"empty\.jsonl is empty, so the earlier runs"):
        replay(logger.log_file_path)


def test_the_history_of_a_run_that_was_summarised_because_the_provider_refused_it(tmp_path):
    asked = []

    def leads(messages):
        asked.append(len(messages))
        if len(asked) == 3:
            return ContextOverflowError("too long", backend="scripted", model="root")
        return {
            1: runs.cell("a = 1"),
            2: runs.cell("b = 2"),
            4: "the summary",
            5: runs.cell("seen = [m['content'] for m in history]; print(seen)"),
            6: "FINAL_VAR(seen)",
        }[len(asked)]

    logger = RLMLogger(tmp_path)
    completion = RLM(ScriptedLM(leads), compaction=True, logger=logger).completion("c", "q")
    report = replay(logger.log_file_path)
    assert report.equal, report
    again = RLM.resume(logger.log_file_path, backend=ScriptedLM([]), logger=logger)
    assert again.response == completion.response
    report = replay(logger.log_file_path)
    assert report.equal, report


def test_the_time_of_a_fork_goes_on_from_the_iteration(tmp_path):
    logger = RLMLogger(tmp_path)
    RLM(ScriptedLM([runs.cell("1"), runs.cell("2"), "FINAL(2)"]), logger=logger).completion("c", "q")
    ends = [line["time"] for line in lines(record_file(logger)) if line["type"] == "iteration"]
    known = reader.read_log(logger.log_file_path).trajectory
    assert [recorded_run_of(known, at).seconds for at in (1, 2, 3)] == ends
    assert recorded_run_of(known).seconds == known.seconds > ends[-1]


def test_a_repaired_answer_costs_what_it_cost(tmp_path):
    cell = runs.cell("x = llm_query('a number', schema={'type': 'integer'})")
    logger = RLMLogger(tmp_path)
    completion = RLM(ScriptedLM([cell, "no number", "7", "FINAL_VAR(x)"]), logger=logger).completion("c", "q")
    again = RLM.resume(logger.log_file_path, backend=ScriptedLM([]))
    assert again.usage_summary == completion.usage_summary
    known = reader.read_log(logger.log_file_path).trajectory
    assert sum(1 for _ in known.spending()) == completion.usage_summary.total_calls


def test_calls_of_a_tool_that_overtake_each_other_keep_their_results(tmp_path):
    calls, begun, over = [], [threading.Event() for _ in range(3)], [threading.Event() for _ in range(4)]
    over[3].set()

    def number():
        mine = len(calls)
        calls.append(mine)
        begun[mine].set()
        over[mine + 1].wait(30)  # the last one ends first
        over[mine].set()
        return mine

    code = """
import threading
found = {}
threads = [threading.Thread(target=lambda n=n: found.update({n: number()})) for n in range(3)]
for n, thread in enumerate(threads):
    thread.start()
    has_begun(n)
for thread in threads:
    thread.join()
found = sorted(found.items())"""
    logger = RLMLogger(tmp_path)
    tools = {"number": number, "has_begun": lambda n: begun[n].wait(30)}
    script = [runs.cell(code), "FINAL_VAR(found)"]
    completion = RLM(ScriptedLM(script), custom_tools=tools, logger=logger).completion("c", "q")
    assert completion.response == "[(0, 0), (1, 1), (2, 2)]"
    report = replay(logger.log_file_path)
    assert report.equal, report
    assert RLM.resume(logger.log_file_path, backend=ScriptedLM([])).response == completion.response


def test_a_run_that_was_stopped_is_read_back_as_stopped(tmp_path):
    async def stopped():
        lm = ScriptedLM(["FINAL(1)"], delay=60)
        running = asyncio.ensure_future(RLM(lm, logger=RLMLogger(tmp_path)).acompletion("c", "q"))
        while not list(tmp_path.glob("*.events.jsonl")):
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(stopped())
    (log,) = tmp_path.glob("*.events.jsonl")
    assert isinstance(reader.read_log(log).trajectory.failure, asyncio.CancelledError)


def test_a_deadline_in_a_cell_is_gone_on_from_there(tmp_path):
    logger = RLMLogger(tmp_path)
    release = tmp_path / "release"
    wait = f"while not os.path.exists({str(release)!r}): time.sleep(0.05)"
    code = f"import os, time\na = llm_query('first')\n{wait}\nb = llm_query('second')"
    sub = ScriptedLM(upper, model="sub")
    root = ScriptedLM([runs.cell(code)], model="root")
    with pytest.raises(TimeoutExceededError):
        RLM(root, other_backends=[sub], max_timeout=3.0, logger=logger).completion("c", "q")
    release.touch()
    more = ScriptedLM(["FINAL_VAR(b)"], model="root")
    again = RLM.resume(logger.log_file_path, backend=more, other_backends=[sub], max_timeout=60.0)
    assert again.response == "SECOND"
    assert [call.prompt for call in sub.calls] == ["first", "second"]


def test_the_calls_before_the_iteration_count_for_max_calls(tmp_path):
    cell = (
        "llm_query('a')\nllm_query_batched(['b', 'c'])\nprint(rlm_query('input', model='child'))\n"
        "print(llm_query_batched(['d'], model='unknown'))"
    )
    last = runs.cell("FINAL(f'{budget().calls} left: ' + llm_query_batched(['e'] * 5)[-1])")
    sub = ScriptedLM(upper, model="sub")
    child = ScriptedLM([runs.cell("FINAL(llm_query('f'))")], model="child")
    logger = RLMLogger(tmp_path)
    options = {"other_backends": [sub, child], "max_depth": 2}
    whole = RLM(ScriptedLM([runs.cell(cell), last]), max_calls=9, logger=logger, **options).completion("c", "q")
    assert whole.response.startswith("4 left: Error")
    before = len(sub.calls)
    again = RLM.resume(logger.log_file_path, at=1, backend=ScriptedLM([last]), other_backends=[sub, child])
    assert again.response == whole.response
    assert len(sub.calls) == before + 4


def test_a_further_question_goes_on_in_the_kernel_of_a_recorded_run(tmp_path):
    first, logger = ScriptedLM([runs.cell("x = llm_query('one')"), "ONE", "FINAL(1)"]), RLMLogger(tmp_path)
    RLM(first, logger=logger).completion({"a": 1}, "a question")
    log, second = logger.log_file_path, ScriptedLM([runs.cell("FINAL([x, context, context_0])")])
    with RLM(second, logger=logger, persistent=True) as rlm:
        rlm.continue_from(log)
        done = rlm.completion({"b": 2}, "another")
        with pytest.raises(ConfigError, match="take a new RLM"):
            rlm.continue_from(log)
    assert done.response == "['ONE', {'b': 2}, {'a': 1}]"
    assert (done.usage_summary.total_calls, len(first.calls)) == (1, 3)
    assert reader.read_log(logger.log_file_path).metadata["continues"] == stem_of(Path(log))
    assert replay(logger.log_file_path).equal
    assert RLM.resume(logger.log_file_path, backend=ScriptedLM([])).response == done.response


def test_only_a_kernel_that_is_kept_goes_on(tmp_path):
    with pytest.raises(ConfigError, match="persistent=True"):
        RLM(ScriptedLM([])).continue_from(tmp_path / "x.jsonl")
