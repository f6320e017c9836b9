"""The log of a run: documented lines, nothing lost, no secrets; and a reader that fails stops nothing."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from recorded_runs import record_file
from trajectory import runs

from rlm import RLM, ConfigError, RecordingError, ScriptedLM, TokenLimitExceededError
from rlm.logger import RLMLogger
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.log import jsonl
from rlm_kernel.trajectory.log.context_store import decode, encode, load, store
from rlm_kernel.trajectory.log.file_names import TURNS, file_beside, slug_of
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.trajectory.log.redaction import HIDDEN, Redactor, is_secret_name
from rlm_kernel.trajectory.log.writer import LogWriter
from rlm_kernel.trajectory.tree import Trajectory
from rlm_kernel.types import Reply, Usage

DOCUMENTED_ITERATION = {
    "type", "iteration", "timestamp", "prompt", "response", "code_blocks", "final_answer", "iteration_time",
}  # fmt: skip
DOCUMENTED_METADATA = {
    "type", "timestamp", "root_model", "max_depth", "max_iterations", "backend", "backend_kwargs",
    "environment_type", "environment_kwargs", "other_backends",
}  # fmt: skip


def parsed(log):
    return [json.loads(line) for line in Path(log).read_text("ascii").splitlines()]


def of_type(log, kind):
    return [line for line in parsed(log) if line["type"] == kind]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return runs.run(tmp_path_factory.mktemp("whole"))


def test_the_file_has_the_documented_name_and_fields(whole):
    log = file_beside(Path(whole[1]), TURNS)
    assert re.fullmatch(r"rlm_[\w-]+_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{8}\.jsonl", Path(log).name)
    first, *_ = parsed(log)
    assert first["type"] == "metadata"
    assert first.keys() >= DOCUMENTED_METADATA
    assert (first["root_model"], first["max_depth"], first["environment_type"]) == ("root", 2, "local")
    iterations = of_type(log, "iteration")
    assert [line["iteration"] for line in iterations] == list(range(1, 8))
    assert all(line.keys() >= DOCUMENTED_ITERATION for line in iterations)
    block = iterations[2]["code_blocks"][0]
    assert block["code"].startswith("one = llm_query('alone')")
    assert "NameError" in block["result"]["stderr"]
    values = block["result"]["locals"]
    assert values["answers"].startswith("['QUESTION 0 (1)', 'QUESTION 1 (1)',")
    assert len(values["answers"]) == 200
    assert (values["one"], values["twice"]) == ("'ALONE (1)'", "['THE SAME (1)', 'THE SAME (2)']")
    assert [call["response"] for call in block["result"]["rlm_calls"]] == ["ALONE (1)", "THE SAME (1)", "THE SAME (2)"]
    assert iterations[-1]["final_answer"] == runs.ANSWER


def test_the_outcome_holds_the_trajectory_with_its_children(whole):
    completion, _ = whole
    assert completion.metadata["run_metadata"]["root_model"] == "root"
    iterations = completion.metadata["iterations"]
    assert len(iterations) == 7
    (call,) = iterations[3]["code_blocks"][0]["result"]["rlm_calls"]
    child = call["metadata"]["iterations"]
    assert child[0]["code_blocks"][0]["result"]["rlm_calls"][0]["prompt"] == "asked by the child"
    json.dumps(completion.to_dict())


def test_without_a_folder_the_trajectory_is_kept_in_memory_only(tmp_path):
    logger = RLMLogger()
    completion = RLM(ScriptedLM(["```repl\n1\n```", "FINAL(2)"]), logger=logger).completion("c", "q")
    assert logger.get_trajectory() == completion.metadata
    assert len(completion.metadata["iterations"]) == 2
    assert logger.log_file_path is None
    assert list(Path().iterdir()) == []


def test_without_a_logger_there_is_no_trajectory():
    assert RLM(ScriptedLM(["FINAL(1)", "FINAL(1)"])).completion("c", "q").metadata is None


def test_what_is_read_back_is_what_was_told(tmp_path):
    told = []
    models = runs.Models()

    async def run():
        async with RLM(**runs.arguments(models), max_depth=2, logger=RLMLogger(tmp_path)) as rlm:
            told.extend([event async for event in rlm.stream(runs.CONTEXT, "What is there?")])

    asyncio.run(run())
    (log,) = tmp_path.glob("*.events.jsonl")
    kept = [Redactor().event(event) for event in told if jsonl.line_of(event) is not None]
    known = read_log(log).trajectory
    expected = Trajectory(kept)
    assert [turn.reply for turn in known.turns] == [turn.reply for turn in expected.turns]
    assert [cell.result for cell in known.cells] == [cell.result for cell in expected.cells]
    assert list(known.spending()) == list(expected.spending())
    assert known.completion.usage_summary == expected.completion.usage_summary


def test_the_log_grows_with_the_run_and_not_with_its_square(tmp_path):
    sizes = {}
    for turns in (20, 40):
        script = [*(runs.cell(f"print('x' * 2000, {n:2})") for n in range(turns)), "FINAL(1)"]
        logger = RLMLogger(tmp_path, f"run{turns}", notebook=False)
        RLM(ScriptedLM(script), logger=logger, max_iterations=100).completion("c" * 1000, "q")
        sizes[turns] = record_file(logger).stat().st_size
    assert sizes[40] < 2.1 * sizes[20]


def test_the_context_is_stored_once_for_many_runs(tmp_path):
    context = "long " * 10_000
    for _ in range(3):
        RLM(ScriptedLM(["FINAL(1)", "FINAL(1)"]), logger=RLMLogger(tmp_path, notebook=False)).completion(context, "q")
    (stored,) = (tmp_path / "contexts").iterdir()
    assert stored.read_text() == context


@pytest.mark.parametrize(
    ("context", "encoding"),
    [
        ("text with a lone surrogate \ud800", "text"),
        ({"a": [1, 2.5, None, True]}, "json"),
        (["x", {"y": []}], "json"),
        ({1: "a key that is no str"}, "pickle"),
        ([("a", "tuple")], "pickle"),
        ([float("nan")], "pickle"),
        ([b"bytes"], "pickle"),
    ],
)
def test_a_context_comes_back_exactly_or_is_not_opened(tmp_path, context, encoding):
    stored = store(context, tmp_path)
    kind, content = load(stored, tmp_path)
    assert (kind, content) == encode(context)
    assert kind == encoding
    if encoding == "pickle":
        with pytest.raises(RecordingError, match="a pickle can run code"):
            decode(kind, content)
    else:
        assert decode(kind, content) == context


def test_a_line_is_on_disk_before_the_answer_is_used(tmp_path):
    seen = []

    def answer(messages):
        (log,) = tmp_path.glob("*.events.jsonl")
        seen.append([line["type"] for line in parsed(log)])
        return runs.cell("llm_query('x')") if len(seen) == 1 else "FINAL(1)" if len(seen) == 3 else "y"

    RLM(ScriptedLM(answer), logger=RLMLogger(tmp_path, notebook=False)).completion("c", "q")
    assert "reply" in seen[1]
    assert seen[1][-1] == "subcall"
    assert "answer" in seen[2]


def test_one_logger_serves_completions_that_run_at_once(tmp_path):
    logger = RLMLogger(tmp_path)

    async def run():
        lm = ScriptedLM(lambda messages: "FINAL(x)" if runs.turn(messages) else runs.cell("x = context * 2"))
        async with RLM(lm, logger=logger) as rlm:
            return await asyncio.gather(*(rlm.acompletion(f"<{n}>", "q") for n in range(6)))

    completions = asyncio.run(run())
    assert [completion.response for completion in completions] == [f"<{n}><{n}>" for n in range(6)]
    outcomes = {
        of_type(log, "context")[0]["value"]: of_type(log, "finished") for log in tmp_path.glob("*.events.jsonl")
    }
    assert {value: line["response"] for value, (line,) in outcomes.items()} == {
        f"<{n}>": f"<{n}>" * 2 for n in range(6)
    }
    assert len(list(tmp_path.glob("*.ipynb"))) == 6
    for completion in completions:
        assert len(completion.metadata["iterations"]) == 2


# -- secrets


def test_secrets_are_in_no_file_by_value_or_by_name(tmp_path, monkeypatch, provider):
    key, other, named = "sk-the-key-of-the-user", "the secret of the machine", "named-like-one"
    monkeypatch.setenv("SOMETHING_SECRET", other)
    script = [f"My key is {key} and {other}.\n```repl\nprint({key!r} + {other!r})\n```", f"FINAL({key})"]
    provider.script = script
    rlm = RLM(
        "openai",
        {**provider.backend_kwargs, "model_name": "m", "api_key": key},
        environment_kwargs={"env": {"MY_TOKEN": named}},
        logger=RLMLogger(tmp_path),
    )
    with rlm:
        completion = rlm.completion(f"a context with {key}", f"a question with {other} and {named}")
    assert completion.response == key  # the answer itself is the user's
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".jsonl", ".ipynb", ".py"}
    everything = "".join(file.read_text() for file in files) + json.dumps(completion.metadata)
    assert HIDDEN in everything
    for secret in (key, other, named):
        assert secret not in everything
    with pytest.raises(RecordingError, match="holds a secret"):
        RLM.resume(next(tmp_path.glob("*.events.jsonl")), backend=ScriptedLM([]))


@pytest.mark.parametrize("name", "api_key OPENAI_API_KEY password Authorization GITHUB_TOKEN aws_secret".split())
def test_names_of_secrets_are_known(name):
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["max_tokens", "input_tokens", "keyboard", "model", "monkey", "author", "key_points"])
def test_innocent_names_are_left_alone(name):
    assert not is_secret_name(name)


def test_a_secret_is_found_as_json_writes_it():
    secret = 'a "quoted" secret\nwith ünicode'
    assert "quoted" not in Redactor([secret])(json.dumps({"text": f"<{secret}>"}))


# -- readers that fail


def test_a_folder_that_cannot_be_written_is_told_once_and_the_run_goes_on(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    logger = RLMLogger(tmp_path / "file" / "logs")
    with pytest.warns(RuntimeWarning, match="not logged") as told:
        completion = RLM(ScriptedLM(["FINAL(1)", "FINAL(1)"]), logger=logger).completion("c", "q")
    assert len(told) == 1
    assert completion.response == "1"
    assert completion.metadata is not None


def test_a_run_that_is_not_logged_has_no_files(tmp_path):
    logger = RLMLogger(tmp_path / "logs")
    script = ["FINAL(1)"] * 4
    RLM(ScriptedLM(script), logger=logger).completion("c", "q")
    (tmp_path / "logs").rename(tmp_path / "gone")
    (tmp_path / "logs").write_text("not a folder")
    with pytest.warns(RuntimeWarning, match="not logged"):
        RLM(ScriptedLM(script), logger=logger).completion("c", "q")
    assert (logger.log_file_path, logger.notebook_path) == (None, None)


def test_a_prompt_that_took_two_replies_is_two_calls(tmp_path):
    cell = runs.cell("x = llm_query('a number', schema={'type': 'integer'})")
    script = [Reply(text, "m", Usage(10, 2)) for text in (cell, "no number", "7", "FINAL_VAR(x)")]
    completion = RLM(ScriptedLM(script, model="m"), logger=RLMLogger(tmp_path)).completion("c", "q")
    (call,) = completion.metadata["iterations"][0]["code_blocks"][0]["result"]["rlm_calls"]
    assert call["usage_summary"]["model_usage_summaries"]["m"]["total_calls"] == 2


def test_a_disk_that_is_full_stops_neither_the_run_nor_the_others(tmp_path, monkeypatch):
    written = []

    def full(self, line, file=None):
        written.append(line["type"])
        if line["type"] == "cell":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(LogWriter, "_write", full)
    with pytest.warns(RuntimeWarning, match="No space left on device") as told:
        completion = RLM(
            ScriptedLM(["```repl\n1\n```", "```repl\n2\n```", "FINAL(3)"]), logger=RLMLogger(tmp_path)
        ).completion("c", "q")
    assert len(told) == 1
    assert "the run goes on" in str(told[0].message)
    assert completion.response == "3"
    assert len(completion.metadata["iterations"]) == 3
    assert written[-1] == "cell"
    (notebook,) = tmp_path.glob("*.ipynb")
    assert "FINAL" in notebook.read_text() or "3" in notebook.read_text()


def test_a_limit_carries_the_trajectory(tmp_path):
    lm = ScriptedLM([Reply(runs.cell("1"), "m", Usage(50, 60)), "FINAL(1)"])
    with pytest.raises(TokenLimitExceededError) as caught:
        RLM(lm, max_tokens=100, logger=RLMLogger(tmp_path)).completion("c", "q")
    assert caught.value.trajectory["iterations"][0]["response"] == runs.cell("1")
    (log,) = tmp_path.glob("*.events.jsonl")
    (failed,) = of_type(log, "failed")
    assert failed["error_type"] == "TokenLimitExceededError"
    assert isinstance(read_log(log).trajectory.failure, TokenLimitExceededError)


def test_ctrl_c_carries_usage_and_trajectory(tmp_path):
    program = """
import os, signal, sys, threading
from rlm import RLM, ScriptedLM, CancellationError
from rlm.logger import RLMLogger
cells = ["answer['content'] = 'a draft'", "import time; llm_query('go'); time.sleep(60)"]
lm = ScriptedLM([f"```repl\\n{cell}\\n```" for cell in cells])
class Sub(ScriptedLM):
    async def complete(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return await super().complete(*args, **kwargs)
try:
    RLM(lm, other_backends=[Sub(["ok"], model="sub")], logger=RLMLogger(sys.argv[1])).completion("c", "q")
except CancellationError as error:
    print(error.partial_answer, error.usage.total_calls >= 2, len(error.trajectory["iterations"]))
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "a draft True 2", done.stderr


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("How long is it, in words?", "how-long-is-it-in-words"),
        ("Which of the many contracts can be ended within 30 days?", "which-of-the-many-contracts-can"),
        ("契約は、いつ終わりますか。", "契約は-いつ終わりますか"),
        ("Donaudampfschifffahrtsgesellschaftskapitänsmütze", "donaudampfschifffahrtsgesellscha"),
        ("../../etc/passwd\n\0 \ud800 a_b", "etc-passwd-a-b"),
        ("?! \ud800", ""),
        ("x " * 10_000_000, "x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x"),
    ],
)
def test_the_first_words_of_the_question_are_in_the_names(tmp_path, question, words):
    assert slug_of(question) == words
    log = RLMLogger(tmp_path).start({}, question=question)
    begin = f"rlm_{words}_" if words else "rlm_"
    assert re.fullmatch(rf"{begin}\d{{4}}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{{8}}", log.run_id)
    log.close()


def test_no_secret_of_a_question_is_in_a_name(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVICE_API_KEY", "hunter2hunter2hunter2")
    logger = RLMLogger(tmp_path)
    for question, words in (
        ("hunter2hunter2hunter2 is it?", "redacted-is-it"),
        (f"{'. ' * 490}hunter2hunter2hunter2", ""),
    ):
        logger.start({}, question=question).close()
        assert "hunter" not in Path(logger.log_file_path).name
        assert f"_{words}" in Path(logger.log_file_path).name


def test_runs_are_listed_by_their_beginning_whatever_their_names_begin_with(tmp_path):
    names = [
        "rlm_2026-11-30_10-00-00_00000000",
        "rlm_a-z_2026-11-30_11-00-00_00000000",
        "rlm_z_2026-01-01_09-00-00_0a0b0c0d",
    ]
    for name in names:
        (tmp_path / f"{name}.jsonl").touch()
    with pytest.raises(RecordingError, match=f"The latest is .*{names[1]}"):
        read_log(tmp_path)


@pytest.mark.parametrize("name", ["a/b", "..", "", 5])
def test_a_file_name_that_is_none_is_refused(name):
    with pytest.raises(ConfigError, match="file_name"):
        RLMLogger(file_name=name)


class OnceOnly:
    """Can be pickled one time, when the input is checked."""

    pickled = 0

    def __reduce__(self):
        OnceOnly.pickled += 1
        if OnceOnly.pickled > 1:
            raise TypeError("no more")
        return OnceOnly, ()


def test_a_context_that_cannot_be_stored_is_told_once(tmp_path):
    with pytest.warns(RuntimeWarning, match="the context could not be stored") as told, pytest.raises(ConfigError):
        RLM(ScriptedLM(["FINAL(1)"]), logger=RLMLogger(tmp_path)).completion([OnceOnly()], "q")
    assert len(told) == 1


def test_a_logger_that_stays_does_not_keep_the_input(tmp_path):
    given = "c" * 100_000
    before = sys.getrefcount(given)
    logger = RLMLogger(tmp_path)
    RLM(ScriptedLM(["FINAL(1)", "FINAL(1)"]), logger=logger).completion(given, "q")
    gc.collect()
    assert sys.getrefcount(given) == before
    assert len(logger.get_trajectory()["iterations"]) == 2


def test_a_logger_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="RLMLogger"):
        RLM(ScriptedLM([]), logger="logs")


def test_a_renamed_field_keeps_its_key_in_the_log():
    messages = ({"role": "user", "content": "Turn 1"},)
    started = events.IterationStarted(time=0, iteration=1, messages=messages)
    answered = events.SubcallAnswered(
        time=0, cell=1, query="q", index=0, model="m", prompt="", text="1", error=None, usage=Usage(), seconds=0,
        raw_text="```1```",
    )  # fmt: skip
    for event, key, value in ((started, "told", messages), (answered, "said", "```1```")):
        line = jsonl.line_of(event)
        assert line[key] == value
        assert jsonl.event_of(line) == event


def test_an_event_that_is_not_recorded_has_no_line():
    assert jsonl.line_of(events.ModelText(time=0, iteration=1, text="piece")) is None


def test_pictures_stand_beside_the_log_once(tmp_path):
    png = b"\x89PNG\r\n\x1a\n" + b"x" * 100
    code = f"picture = {png!r}\n[llm_query(q, images=[picture]) for q in ('one', 'two')]"
    lm = ScriptedLM([runs.cell(code), "a", "b", "FINAL(1)"])
    RLM(lm, logger=RLMLogger(tmp_path)).completion("c", "q")
    (stored,) = (tmp_path / "images").iterdir()
    assert stored.read_bytes() == png
    (log,) = tmp_path.glob("*.events.jsonl")
    assert [line["images"][0]["sha256"] for line in of_type(log, "subcall")] == [stored.stem] * 2
