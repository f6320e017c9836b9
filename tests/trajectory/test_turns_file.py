"""The two files of a log: the turns, which the reference's visualizer opens, and the record beside them."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ConfigDict, TypeAdapter
from recorded_runs import code, record, record_file
from trajectory import runs
from typing_extensions import TypedDict
from viewer.reference_logs import reference_log

from rlm import RLM, AgentRLM, RecordingError, ScriptedLM, TimeoutExceededError
from rlm.logger import RLMLogger
from rlm_kernel.cli import main
from rlm_kernel.replay.replayer import replay
from rlm_kernel.trajectory.log.file_names import RECORD, TURNS, file_beside, stem_of
from rlm_kernel.trajectory.log.quota import MIN_BYTES
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.viewer.folder import Folder, folder_of

# -- what the visualizer reads: the fields of its types, which its parser does not check and its page uses

STRICT = ConfigDict(strict=True)


class Message(TypedDict):
    __pydantic_config__ = STRICT
    role: str
    content: str


class Call(TypedDict):
    __pydantic_config__ = STRICT
    prompt: str | dict[str, Any]
    response: str
    prompt_tokens: int
    completion_tokens: int
    execution_time: float


class Result(TypedDict):
    __pydantic_config__ = STRICT
    stdout: str
    stderr: str
    locals: dict[str, Any]
    execution_time: float
    rlm_calls: list[Call]


class Block(TypedDict):
    __pydantic_config__ = STRICT
    code: str
    result: Result


class Iteration(TypedDict):
    __pydantic_config__ = STRICT
    type: str
    iteration: int
    timestamp: str
    prompt: list[Message]
    response: str
    code_blocks: list[Block]
    final_answer: str | None
    iteration_time: float | None


class Metadata(TypedDict):
    __pydantic_config__ = STRICT
    root_model: str | None
    max_depth: int | None
    max_iterations: int | None
    backend: str | None
    backend_kwargs: dict[str, Any] | None
    environment_type: str | None
    environment_kwargs: dict[str, Any] | None
    other_backends: list[str] | None


def opened(turns: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A log as the visualizer opens it: each line that is not `metadata` is an iteration."""
    lines = [json.loads(line) for line in turns.read_text("ascii").splitlines()]
    iterations = [line for line in lines if line.get("type") != "metadata"]
    (metadata,) = (line for line in lines if line.get("type") == "metadata")
    TypeAdapter(list[Iteration]).validate_python(iterations)
    TypeAdapter(Metadata).validate_python(metadata)
    assert all(datetime.fromisoformat(line["timestamp"]).tzinfo for line in lines)
    return metadata, iterations


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    completion, log = runs.run(tmp_path_factory.mktemp("whole"))
    return completion, Path(log)


def test_the_visualizer_opens_the_turns_of_a_run_with_errors_sub_calls_and_children(whole):
    completion, log = whole
    metadata, iterations = opened(file_beside(log, TURNS))
    assert (metadata["root_model"], metadata["environment_type"]) == ("root", "local")
    assert (metadata["backend"], metadata["other_backends"]) == ("ScriptedLM", ["ScriptedLM"])
    assert [turn["iteration"] for turn in iterations] == list(range(1, 8))
    assert iterations[-1]["final_answer"] == completion.response
    assert "NameError" in iterations[2]["code_blocks"][0]["result"]["stderr"]
    assert iterations[0]["code_blocks"][0]["result"]["stdout"] == "100\n"  # the value of the last line


def test_the_turn_in_which_a_run_fails_is_in_the_turns_with_the_error(tmp_path):
    script = [code("a = 1"), code("import time", "time.sleep(60)")]
    run = record(tmp_path, script, max_timeout=3.0)
    _, iterations = opened(file_beside(run.log, TURNS))
    assert [turn["iteration"] for turn in iterations] == [1, 2]
    assert "TimeoutExceededError: The run was ended after" in iterations[1]["code_blocks"][0]["result"]["stderr"]


def test_the_visualizer_opens_the_turns_of_a_run_whose_model_never_answers(tmp_path):
    logger = RLMLogger(tmp_path)
    with pytest.raises(ConnectionError):
        RLM(ScriptedLM([ConnectionError("no network")]), logger=logger).completion("c", "q")
    metadata, iterations = opened(Path(logger.log_file_path))
    assert (metadata["root_model"], iterations) == ("scripted", [])


KILLED = """
import os, signal, sys
from rlm import RLM, ScriptedLM
from rlm.logger import RLMLogger

def answer(messages):
    turn = sum(message["role"] == "assistant" for message in messages)
    if turn == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"```repl\\nn = {turn}\\n```"

RLM(ScriptedLM(answer), logger=RLMLogger(sys.argv[1])).completion("c", "q")
"""


def test_a_host_that_is_killed_loses_no_turn_that_ended(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    (events,) = tmp_path.glob("*.events.jsonl")
    _, iterations = opened(file_beside(events, TURNS))
    found = [turn["code_blocks"][0]["result"]["locals"] for turn in iterations]
    assert [(one["n"], one["context"]) for one in found] == [("0", "'c'"), ("1", "'c'"), ("2", "'c'")]
    assert [turn.iteration for turn in read_log(events).trajectory.turns if turn.finished] == [1, 2, 3]


def test_the_visualizer_opens_the_turns_of_a_resumed_run_with_those_before_it(tmp_path):
    run = record(tmp_path, [code("a = llm_query('x')"), code("b = 2"), "FINAL_VAR(a)"])
    logger = RLMLogger(tmp_path / "resumed")
    RLM.resume(run.log, at=1, backend=ScriptedLM(["FINAL(again)"]), logger=logger)
    metadata, iterations = opened(Path(logger.log_file_path))
    assert metadata["root_model"] == "scripted"
    assert [turn["iteration"] for turn in iterations] == [1, 2]
    assert iterations[0]["code_blocks"][0]["result"]["rlm_calls"][0]["response"] == "echo: x"
    assert iterations[-1]["final_answer"] == "again"


def test_the_visualizer_opens_the_turns_of_each_run_of_a_persistent_kernel(tmp_path):
    logger = RLMLogger(tmp_path)
    with RLM(
        ScriptedLM([code("a = 1"), "FINAL(1)", code("a += 1"), "FINAL_VAR(a)"]), logger=logger, persistent=True
    ) as rlm:
        for answer in ("1", "2"):
            rlm.completion("c", "q")
            _, iterations = opened(Path(logger.log_file_path))
            assert [turn["iteration"] for turn in iterations] == [1, 2]
            assert (iterations[0]["prompt"][0]["role"], iterations[-1]["final_answer"]) == ("system", answer)


def test_the_visualizer_opens_the_turns_of_an_agent_also_of_a_message_that_failed(tmp_path):
    replies = [code("a = 1"), "FINAL(one)", code("import time", "time.sleep(60)"), "FINAL(three)"]
    logger = RLMLogger(tmp_path)
    with AgentRLM(ScriptedLM(replies), logger=logger, max_timeout=4.0) as agent:
        agent.completion("First.")
        with pytest.raises(TimeoutExceededError):
            agent.completion("Second.")
        assert agent.completion("Third.").response == "three"
    _, iterations = opened(Path(logger.log_file_path))
    assert [turn["iteration"] for turn in iterations] == [1, 2, 3, 4]
    assert [turn["final_answer"] for turn in iterations] == [None, "one", None, "three"]
    assert "TimeoutExceededError" in iterations[2]["code_blocks"][-1]["result"]["stderr"]


def test_a_later_iteration_holds_only_the_messages_that_are_new(whole):
    _, iterations = opened(file_beside(whole[1], TURNS))
    assert iterations[0]["prompt"][0]["role"] == "system"
    assert [[message["role"] for message in turn["prompt"]] for turn in iterations[1:]] == [["user"]] * 6


def test_the_documented_lines_are_not_in_the_record_too(whole):
    turns = [line for line in map(json.loads, whole[1].read_text().splitlines()) if line["type"] == "iteration"]
    assert all("code_blocks" not in line and "prompt" not in line for line in turns)


def test_an_answer_that_is_given_after_the_last_turn_is_in_the_turns(tmp_path):
    run = record(tmp_path, [code("1"), "The last word."], max_iterations=1)
    _, iterations = opened(file_beside(run.log, TURNS))
    assert [turn["final_answer"] for turn in iterations] == [None, "The last word."]


# -- the values of variables

HOSTILE = """
import sys, threading
class Kind(type):
    def __eq__(self, other): raise SystemExit('a metaclass is called')
    def __hash__(self): raise SystemExit('a metaclass is called')
class Text(str, metaclass=Kind):
    def __repr__(self): raise SystemExit('a repr is called')
    __len__ = __getitem__ = __iter__ = __hash__ = __repr__
class Key(metaclass=Kind):
    def __hash__(self): return 1 if not sealed else sys.exit('a hash is called')
    def __eq__(self, other): return sys.exit('an eq is called')
sealed = False
odd = [Text('a'), {Key(): {Key()}}, 1.5, None, b'b', (1,), frozenset({2}), set(), {'k': True}]
sealed = True
huge = 10 ** 5_000_000
deep = ring = []
for _ in range(100_000): deep = [deep]
ring.append(ring)
long = 'x' * 10_000_000
many = list(range(10 ** 6))
function = lambda: 1
""".strip().splitlines()


def test_locals_hold_the_beginning_of_each_repr_and_no_code_of_the_cell_runs_for_it(tmp_path):
    run = record(tmp_path, [code(*HOSTILE), "FINAL(1)"])
    _, iterations = opened(file_beside(run.log, TURNS))
    result = iterations[0]["code_blocks"][0]["result"]
    assert result["stderr"] == ""
    values = result["locals"]
    assert values["odd"] == "[Text, {Key: {Key}}, 1.5, None, b'b', (1,), frozenset({2}), set(), {'k': True}]"
    assert (values["Text"], values["huge"], values["function"]) == ("Kind", "int", "function")
    assert (values["deep"], values["ring"]) == ("[[[[[...]]]]]", "[[[[[...]]]]]")
    assert values["long"] == "'" + "x" * 199
    assert values["many"] == repr(list(range(100)))[:200]


def test_the_values_of_many_variables_have_a_limit_together_and_the_latest_are_shown(tmp_path):
    run = record(tmp_path, [code("for n in range(150): globals()[f'v{n}'] = 'y' * 900"), "FINAL(1)"])
    values = opened(file_beside(run.log, TURNS))[1][0]["code_blocks"][0]["result"]["locals"]
    assert (values["v0"], values["v149"]) == ("str", "'" + "y" * 199)
    assert values.pop("context")[0] == "'"
    assert sum(value != "str" for value in values.values()) == 23


@pytest.mark.parametrize("length", [8, 60, 801, 5_000])
@pytest.mark.parametrize("before", [0, 150, 195, 990])
def test_no_part_of_a_key_is_in_the_value_of_a_variable(tmp_path, monkeypatch, length, before):
    key = f"sk'\"{'%d' * 8}" % tuple(range(10, 18)) + "".join(f"{n:04}" for n in range(1_300))
    key = key[:length]
    monkeypatch.setenv("SOME_API_KEY", key)
    script = [code("text = '.' * before + key", "found = {'a': [text]}", "password = 'unknown'"), "FINAL(1)"]
    run = record(tmp_path, script, custom_tools={"before": before, "key": key}, environment_kwargs={})
    for file in (run.log, file_beside(run.log, TURNS)):
        for form in (key, repr(key)[1:-1], json.dumps(key)[1:-1]):
            assert json.dumps(form[:8])[1:-1] not in file.read_text()
    values = opened(file_beside(run.log, TURNS))[1][0]["code_blocks"][0]["result"]["locals"]
    assert values["password"] == "[redacted]"
    assert values["text"].startswith("'" + "." * min(before, 199))


# -- either name


def test_every_name_of_a_run_is_its_record(whole):
    for ending in (RECORD, TURNS, ".ipynb", ""):
        assert read_log(file_beside(whole[1], ending)).path == whole[1]
    assert read_log(whole[1]).stem == stem_of(whole[1])


def test_a_link_to_the_turns_is_the_record_beside_them(whole, tmp_path):
    (tmp_path / "latest.jsonl").symlink_to(file_beside(whole[1], TURNS))
    assert read_log(tmp_path / "latest.jsonl").path.samefile(whole[1])
    assert folder_of(str(tmp_path / "latest.jsonl")).only == whole[1].name


@pytest.mark.parametrize("ending", [RECORD, TURNS])
def test_the_commands_take_either_name(tmp_path, capsys, ending):
    run = record(tmp_path, [code("n = len(context)"), "FINAL_VAR(n)"])
    file = str(file_beside(run.log, ending))
    assert main(["show", file]) == 0
    assert main(["view", "--export", str(tmp_path / "page.html"), file]) == 0
    assert main(["export", file, "--to", "md"]) == 0
    assert main(["diff", file, file]) == 0
    assert main(["trust", file]) == 0
    assert main(["replay", file, "--quiet"]) == 0
    assert RLM.resume(file, backend=ScriptedLM([])).response == "12"
    assert (tmp_path / f"{run.name}.md").is_file()
    assert str(run.log) in capsys.readouterr().out
    assert folder_of(file).only == run.log.name


def test_the_viewer_lists_a_run_once(tmp_path):
    run = record(tmp_path, ["FINAL(1)", "FINAL(1)"])
    (summary,) = Folder(tmp_path).summaries()
    assert (summary.name, summary.answer, summary.state) == (run.log.name, "1", "answered")
    assert Folder(tmp_path).log(f"{run.name}.jsonl") is None


def test_a_log_that_is_one_file_still_opens(tmp_path):
    """As an earlier version wrote it: everything in `X.jsonl`, and the documented fields in the same lines."""
    run = record(tmp_path, [code("a = llm_query('x')"), "FINAL_VAR(a)"])
    turns = file_beside(run.log, TURNS)
    documented = iter(opened(turns)[1])
    lines = [json.loads(line) for line in run.log.read_text().splitlines()]
    both = [{**line, **next(documented)} if line["type"] == "iteration" else line for line in lines]
    turns.write_text("".join(json.dumps(line) + "\n" for line in both))
    run.log.unlink()
    assert main(["trust", str(turns)]) == 0
    assert read_log(turns).path == turns
    assert replay(turns).equal
    assert replay(run.notebook).equal
    assert RLM.resume(turns, backend=ScriptedLM([])).response == "echo: x"
    assert [log.name for log in Folder(tmp_path).logs()] == [turns.name]


def test_turns_without_their_record_are_refused_with_the_name_of_what_is_missing(tmp_path):
    run = record(tmp_path, ["FINAL(1)", "FINAL(1)"])
    run.log.unlink()
    with pytest.raises(RecordingError, match=rf"there is no record {run.log.name} beside it: put it back"):
        read_log(file_beside(run.log, TURNS))
    page = tmp_path / "page.html"
    assert main(["view", "--export", str(page), str(file_beside(run.log, TURNS))]) == 0


@pytest.mark.parametrize("command", ["show", "replay", "resume", "diff", "export", "view"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_log_of_the_reference_can_be_viewed_and_other_commands_say_so(tmp_path, capsys, command, first):
    file = reference_log(tmp_path / "theirs.jsonl")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[first:]))
    options = {"diff": [str(file)], "export": ["--to", "md"], "view": ["--export", str(tmp_path / "page.html")]}
    status = main([command, str(file), *options.get(command, [])])
    if command == "view":
        assert (status, (tmp_path / "page.html").is_file()) == (0, True)
        return
    assert status != 0
    told = " ".join(capsys.readouterr().err.split())
    assert "as the reference's RLMLogger writes them: `rlm view` opens it" in told
    assert "there is no record theirs.events.jsonl beside it" in told


# -- the same care for both files


def test_turns_that_are_removed_during_the_run_are_written_again(tmp_path):
    def answer(messages):
        if runs.turn(messages) == 2:
            (file,) = set(tmp_path.glob("*.jsonl")) - set(tmp_path.glob("*.events.jsonl"))
            file.unlink()
        return "FINAL(done)" if runs.turn(messages) == 3 else code("1")

    logger = RLMLogger(tmp_path, notebook=False)
    RLM(ScriptedLM(answer), logger=logger).completion("c", "q")
    assert len(opened(Path(logger.log_file_path))[1]) == 4


def test_the_quota_is_for_both_files_and_the_turns_still_open(tmp_path):
    script = [code(f"print({turn}, 'x' * 9_000)") for turn in range(12)] + ["FINAL(1)"]
    logger = RLMLogger(tmp_path, notebook=False, max_log_bytes=MIN_BYTES)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        RLM(ScriptedLM(script), logger=logger, max_iterations=20).completion("c", "q")
    assert "max_log_bytes" in str(told[0].message)
    files = [Path(logger.log_file_path), record_file(logger)]
    assert sum(file.stat().st_size for file in files) < MIN_BYTES * 1.1
    metadata, iterations = opened(files[0])
    assert metadata["root_model"]
    assert len(iterations) > 2


def test_the_path_of_each_run_is_known_before_it_starts(tmp_path):
    logger = RLMLogger(tmp_path)
    first, notebook = logger.log_file_path, logger.notebook_path
    assert logger.next_log_file_path == first
    assert not list(tmp_path.iterdir())
    RLM(ScriptedLM(["FINAL(1)"] * 2), logger=logger).completion("c", "q")
    assert (logger.log_file_path, logger.notebook_path) == (first, notebook)
    second = logger.next_log_file_path
    assert not Path(second).exists()
    RLM(ScriptedLM(["FINAL(1)"] * 2), logger=logger).completion("c", "q")
    assert logger.log_file_path == second != first
    assert all(Path(path).is_file() for path in (first, second, notebook))
    assert len(list(tmp_path.glob("*.events.jsonl"))) == 2
    assert RLMLogger().next_log_file_path is None


# -- completion.metadata


def test_the_metadata_of_a_result_has_what_the_reference_has(whole):
    completion, _ = whole
    iterations = completion.metadata["iterations"]
    assert {turn["type"] for turn in iterations} == {"iteration"}
    times = [datetime.fromisoformat(turn["timestamp"]) for turn in iterations]
    assert times == sorted(times)
    about = completion.metadata["run_metadata"]
    assert about["environment_kwargs"] == {}
    assert (about["backend"], about["other_backends"]) == ("ScriptedLM", ["ScriptedLM"])
    assert iterations[2]["code_blocks"][0]["result"]["locals"]["one"] == "'ALONE (1)'"
    for before, turn in itertools.pairwise(iterations):
        said = {"role": "assistant", "content": before["response"]}
        assert turn["prompt"][: len(before["prompt"]) + 1] == [*before["prompt"], said]
        assert turn["prompt"][-1]["role"] == "user"


def test_a_child_in_the_metadata_has_metadata_of_its_own(whole):
    completion, _ = whole
    (call,) = completion.metadata["iterations"][3]["code_blocks"][0]["result"]["rlm_calls"]
    about, own = call["metadata"]["run_metadata"], completion.metadata["run_metadata"]
    assert (about["root_model"], about["environment_type"]) == ("sub", "local")
    assert (about["max_depth"], about["max_iterations"]) == (own["max_depth"], own["max_iterations"])
    assert about["backend_kwargs"] == {"model_name": "sub"}
    assert datetime.fromisoformat(call["metadata"]["iterations"][0]["timestamp"]).tzinfo
