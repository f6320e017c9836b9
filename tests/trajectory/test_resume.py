"""A run goes on from its record: nothing recorded is asked again, and the answer is the same."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from os import kill
from pathlib import Path
from signal import SIGKILL

import nbformat
import pytest
from recorded_runs import notebook_beside, record_file
from selection import mostly_full
from trajectory import runs

from rlm import RLM, BudgetExceededError, ConfigError, RecordingError, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel.trajectory.log import reader
from rlm_kernel.trajectory.log.file_names import stem_of
from rlm_kernel.types import Reply, Usage


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run: its outcome, and the path of its log."""
    return runs.run(tmp_path_factory.mktemp("whole"))


def resumed(log, models, **overrides):
    return RLM.resume(log, **{**runs.arguments(models), **overrides})


def lines(log):
    """The lines of a log; the last one may be cut."""
    found = []
    for raw in Path(log).read_text().splitlines(keepends=True):
        with suppress(ValueError):
            found.append(json.loads(raw))
    return found


def answered_prompts(log):
    """What stands in the log with an answer, as the scripted models name it."""
    prompts, answered = {}, []

    def take(line, who, path):
        match line["type"]:
            case "reply":
                answered.append(f"{who} turn {line['iteration'] - 1}")
            case "subcall":
                prompts[*path, line["cell"], line["query"]] = line["prompts"]
            case "answer":
                whose = prompts[*path, line["cell"], line["query"]]
                if whose[line["index"]] != "a child's input":
                    answered.append(whose[line["index"]])
            case "child":
                take(line["line"], "child", (*path, line["cell"], line["query"], line["index"]))

    for line in lines(log):
        take(line, "root", ())
    return answered


def test_a_finished_run_is_not_asked_again(whole):
    completion, log = whole
    models = runs.Models()
    again = resumed(log, models)
    assert again.response == completion.response == runs.ANSWER
    assert models.new == []
    assert again.usage_summary == completion.usage_summary
    assert again.execution_time >= completion.execution_time


def test_a_fork_goes_on_from_an_iteration(whole):
    _, log = whole
    models = runs.Models()
    models.root = ScriptedLM(["FINAL_VAR(answers)"], model="other")
    forked = resumed(log, models, at=2)
    assert forked.response.startswith("['QUESTION 0 (1)', 'QUESTION 1 (1)'")
    assert models.new == []
    said = [message["content"] for message in models.root.calls[0].messages]
    assert runs.REPLIES[1] in said
    assert runs.REPLIES[2] not in said
    assert "Output:\n200" in said[-1]


def test_a_fork_can_be_asked_something_else(whole):
    models = runs.Models()
    models.root = ScriptedLM(["FINAL(4)"], model="other")
    assert resumed(whole[1], models, at=1, root_prompt="How many letters?").response == "4"
    assert any("How many letters?" in m["content"] for m in models.root.calls[0].messages)


def test_the_new_record_says_what_it_came_from_and_stands_alone(whole, tmp_path):
    _, log = whole
    logger = RLMLogger(tmp_path, "again")
    models = runs.Models()
    models.root = ScriptedLM(["FINAL_VAR(child)"], model="root")
    assert resumed(log, models, at=4, logger=logger).response == "ASKED BY THE CHILD (1)"
    assert lines(record_file(logger))[0]["forked_from"] == {"run_id": stem_of(Path(log)), "log": log, "at": 4}
    # The record of the fork is whole: what was taken from the first one stands in it, too.
    shutil.move(log, tmp_path / "gone")
    try:
        assert resumed(logger.log_file_path, runs.Models()).response == "ASKED BY THE CHILD (1)"
    finally:
        shutil.move(tmp_path / "gone", log)


def test_a_notebook_is_resumed_by_the_log_beside_it(whole):
    assert resumed(notebook_beside(Path(whole[1])), runs.Models()).response == runs.ANSWER


def test_a_tool_that_is_not_given_again_is_missed_only_when_it_is_called(whole):
    models = runs.Models()
    assert RLM.resume(whole[1], backend=models.root, other_backends=[models.sub]).response == runs.ANSWER
    models.root = ScriptedLM([runs.cell("try: add(7, 8)\nexcept Exception as e: FINAL(e)")], model="root")
    forked = RLM.resume(whole[1], at=1, backend=models.root, other_backends=[models.sub])
    assert "custom_tools" in forked.response


@pytest.mark.parametrize(
    ("at", "says"), [(0, "there are 1 to 7"), (8, "there are 1 to 7"), ("one", "not a finished iteration")]
)
def test_an_iteration_that_is_not_there_is_refused(whole, at, says):
    with pytest.raises(RecordingError, match=says):
        resumed(whole[1], runs.Models(), at=at)


def test_objects_are_given_again(whole):
    with pytest.raises(RecordingError, match=r"backend, other_backends held objects"):
        RLM.resume(whole[1])


def test_a_wrong_override_is_refused(whole):
    with pytest.raises(ConfigError, match="max_iterations"):
        resumed(whole[1], runs.Models(), max_iterations=0)


def test_a_file_that_is_no_log_is_named(tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"type": "something"}\n')
    with pytest.raises(RecordingError, match="line 1 is not one of ours"):
        RLM.resume(other)
    other.write_text("no json\n")
    with pytest.raises(RecordingError, match="line 1 is not JSON"):
        RLM.resume(other)
    other.write_text("")
    with pytest.raises(RecordingError, match="holds no run"):
        RLM.resume(other)
    with pytest.raises(RecordingError, match="There is no log"):
        RLM.resume(tmp_path / "missing.jsonl")
    with pytest.raises(RecordingError, match="There is no file"):
        RLM.resume(tmp_path / "missing.ipynb")


def test_a_context_that_is_missing_or_altered_is_named_and_can_be_given_again(tmp_path):
    completion, log = runs.run(tmp_path)
    (stored,) = (tmp_path / "contexts").iterdir()
    content = stored.read_bytes()
    stored.write_bytes(content + b" ")
    with pytest.raises(RecordingError, match="was altered"):
        resumed(log, runs.Models())
    stored.unlink()
    with pytest.raises(RecordingError, match=f"is missing: .*{stored.name}"):
        resumed(log, runs.Models())
    assert resumed(log, runs.Models(), prompt=runs.CONTEXT).response == completion.response


def test_what_was_spent_counts_in_the_resumed_run(tmp_path):
    def priced(text):
        return Reply(text, "root", Usage(10, 10, cost=1.0))

    logger = RLMLogger(tmp_path)
    lm = ScriptedLM([priced(runs.cell("1")), priced(runs.cell("2")), priced("FINAL(3)")])
    with pytest.raises(BudgetExceededError) as caught:
        RLM(lm, max_budget=2.0, logger=logger).completion("c", "q")
    assert caught.value.trajectory["iterations"][1]["code_blocks"][0]["code"] == "2"
    lm = ScriptedLM([priced("FINAL(3)")])
    with pytest.raises(BudgetExceededError):
        RLM.resume(logger.log_file_path, backend=lm)
    assert lm.calls == []
    completion = RLM.resume(logger.log_file_path, backend=lm, max_budget=10.0)
    assert (completion.response, completion.usage_summary.total_cost) == ("3", 3.0)


def test_a_summary_stays_where_it_was(tmp_path):
    logger = RLMLogger(tmp_path)
    script = [runs.cell("a = 1"), "summary one", runs.cell("b = 2"), "summary two", runs.cell("FINAL([a, b])")]
    lm = ScriptedLM(script, context_window=100)
    completion = RLM(lm, compaction=True, logger=logger).completion("c", "q")
    assert completion.response == "[1, 2]"
    kinds = [line["type"] for line in lines(record_file(logger)) if line["type"] in ("reply", "summary")]
    assert kinds == ["reply", "summary", "reply", "summary", "reply"]
    again = ScriptedLM([runs.cell("FINAL([b, a])")])  # its window is not known: the record is followed
    assert RLM.resume(logger.log_file_path, at=2, backend=again).response == "[2, 1]"
    said = [message["content"] for message in again.calls[0].messages]
    assert "summary two" in said
    assert "summary one" not in said


def test_a_kernel_that_was_lost_is_lost_again_without_running_the_cell(tmp_path):
    logger = RLMLogger(tmp_path)
    mark = tmp_path / "mark"
    dies = f"open({str(mark)!r}, 'a').write('x')\nimport os; os._exit(1)"
    lm = ScriptedLM([runs.cell("kept = 5"), runs.cell(dies), runs.cell("FINAL(kept)")])
    assert RLM(lm, logger=logger).completion("c", "q").response == "5"
    again = ScriptedLM([runs.cell("FINAL(kept + 1)")])
    assert RLM.resume(logger.log_file_path, at=2, backend=again).response == "6"
    assert mark.read_text() == "x"
    assert "Still there: `kept`" in lm.calls[2].prompt
    assert again.calls[0].messages == lm.calls[2].messages


async def test_a_run_is_resumed_in_a_running_loop(whole):
    models = runs.Models()
    assert (await RLM.aresume(whole[1], **runs.arguments(models))).response == runs.ANSWER


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """Starts a run in a process of its own; returns the process's id."""
    command = [sys.executable, "-c", "from trajectory import runs; runs.serve()"]
    folder = str(Path(__file__).parents[1])
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder)

    def start(where):
        server.stdin.write(f"{where}\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    with server:
        yield start
        server.stdin.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("moments", mostly_full([3, 50], 3))
def test_killed_at_any_moment_nothing_that_was_answered_is_lost(hosts, tmp_path, moments):
    seconds = _log_of(hosts, tmp_path / "measured", None)[1]
    chance = random.Random(0)
    reached = set()
    for n in range(moments):
        folder = tmp_path / str(n)
        log, _ = _log_of(hosts, folder, (n + chance.random()) / moments * seconds)
        for notebook in folder.rglob("*.ipynb"):
            nbformat.validate(nbformat.read(notebook, as_version=4))
        known = answered_prompts(log)
        reached.add(reader.read_log(log).trajectory.turns[-1].iteration if known else 0)
        models = runs.Models(known)
        completion = resumed(log, models, prompt=runs.CONTEXT)
        assert completion.response == runs.ANSWER
        assert not set(models.new) & set(known) - {"the same"}
        assert models.asked.count("the same") == 2
    assert len(reached) > min(3, moments // 6)  # they were spread over the run


def _log_of(hosts, folder, after):
    """Run until `after` seconds from the first line of the log, or to the end; returns the log and how long it took."""
    folder.mkdir()
    process = hosts(folder)
    while not (logs := list(folder.glob("*.events.jsonl"))) or not logs[0].read_bytes().endswith(b"\n"):
        time.sleep(0.001)
    started = time.perf_counter()
    while after is None or time.perf_counter() - started < after:
        if after is None and b'"type":"finished"' in logs[0].read_bytes():
            break
        time.sleep(0.002)
    with suppress(ProcessLookupError):
        kill(process, SIGKILL)
    return logs[0], time.perf_counter() - started


def test_a_reply_that_did_not_fit_a_schema_is_not_asked_for_again(tmp_path):
    cell = runs.cell("x = llm_query('a number', schema={'type': 'integer'})")
    logger = RLMLogger(tmp_path)
    lm = ScriptedLM([cell, "no number", "7", "FINAL_VAR(x)"])
    completion = RLM(lm, logger=logger).completion("c", "q")
    whole = record_file(logger).read_text().splitlines(keepends=True)
    rejected = next(n for n, line in enumerate(whole) if '"type":"rejected"' in line)
    record_file(logger).write_text("".join(whole[: rejected + 1]))
    again = ScriptedLM(["7", "FINAL_VAR(x)"])
    resumed = RLM.resume(logger.log_file_path, backend=again, prompt="c")
    assert (resumed.response, completion.response) == ("7", "7")
    assert len(again.calls) == 2
    assert resumed.usage_summary.total_calls == completion.usage_summary.total_calls


def test_a_log_cannot_have_a_key_sent_to_a_server_of_its_choice(tmp_path):
    logger = RLMLogger(tmp_path)
    RLM(ScriptedLM(["FINAL(1)", "FINAL(1)"]), logger=logger).completion("c", "q")
    log = record_file(logger)
    forged = lines(log)
    kwargs = {"model_name": "m", "base_url": "https://example.com/v1"}
    forged[0]["configuration"] |= {"backend": "openai", "backend_kwargs": kwargs}
    log.write_text("".join(f"{json.dumps(line)}\n" for line in forged))
    with pytest.raises(RecordingError, match=r"names the server https://example.com/v1.*give backend_kwargs again"):
        RLM.resume(log, trust=True)
    kwargs["base_url"] = "http://127.0.0.1:1/v1"
    log.write_text("".join(f"{json.dumps(line)}\n" for line in forged))
    assert RLM.resume(log, backend_kwargs={**kwargs, "api_key": "k"}, trust=True).response == "1"


def test_a_later_run_of_a_persistent_kernel_finds_what_the_earlier_ones_left(tmp_path):
    logger = RLMLogger(tmp_path)
    sub = ScriptedLM(lambda messages: messages[-1]["content"].upper(), model="sub")
    script = [runs.cell("x = [context]"), "FINAL(1)", runs.cell("x.append(llm_query(context))"), "FINAL(2)"]
    third = [runs.cell("x.append(context)"), "FINAL(3)"]
    with RLM(ScriptedLM(script + third), other_backends=[sub], persistent=True, logger=logger) as rlm:
        for context in ("one", "two", "three"):
            rlm.completion(context, "q")
    new = ScriptedLM([runs.cell("FINAL([x, context_0, context_1, context_2, len(history_0), len(history_1)])")])
    none = ScriptedLM([], model="sub")
    forked = RLM.resume(logger.log_file_path, at=1, backend=new, other_backends=[none])
    assert forked.response == "[['one', 'TWO', 'three'], 'one', 'two', 'three', 5, 5]"
    assert "`context_0` to `context_1`" in new.calls[0].messages[1]["content"]
