"""What the setup cell reads from a log: the same keys as the host's, the cell that is run, the same endings."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trajectory import runs

from rlm_kernel.engine.journal import keys
from rlm_kernel.engine.recorded import recorded_run_of
from rlm_kernel.kernel.comm import answer_entry
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.trajectory.notebook import replay_record, setup_cell
from rlm_kernel.trajectory.notebook.cells import is_cut_off
from rlm_kernel.types import Answer, Image, Query, ToolCall

PIXEL = b"\x89PNG\r\n\x1a\n and more"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    _, path = runs.run(tmp_path_factory.mktemp("run"))
    return Path(path)


def record(*cells):
    lines = [{"type": "cell", "cell": n, "iteration": turn, "code": code} for n, turn, code in cells]
    return replay_record.Record(lines, [])


@given(
    st.lists(st.text(), min_size=1, max_size=3),
    st.none() | st.text(),
    st.none() | st.dictionaries(st.text(), VALUES),
    st.booleans(),
)
def test_the_keys_of_a_question_are_those_of_the_host(prompts, model, schema, pictured):
    images = [PIXEL] * pictured
    question = Query("q", "llm_query", tuple(prompts), model, True, schema, tuple(map(Image.of, images)))
    payload = {"kind": "llm_query", "prompts": prompts, "model": model, "batch": True, "schema": schema}
    assert replay_record.keys(payload, images) == list(keys(question))


@given(st.lists(VALUES, max_size=3), st.dictionaries(st.text(), VALUES, max_size=3))
def test_the_key_of_a_tool_call_is_that_of_the_host(args, kwargs):
    payload = json.loads(json.dumps({"kind": "tool", "tool": "t", "args": args, "kwargs": kwargs}))
    call = ToolCall("q", "t", tuple(payload["args"]), payload["kwargs"])
    assert replay_record.keys(payload, []) == list(keys(call))


def test_the_answers_are_those_that_the_host_would_give(log):
    known = recorded_run_of(read_log(log).trajectory)
    answers = {slot: answer.answer.text for slot, answer in known.answers.items()}
    outcomes = {slot: outcome.text for slot, outcome in known.outcomes.items()}
    mine = replay_record.Record(replay_record.lines_of(log), [])
    assert {slot: answer["text"] for slot, answer in mine.answers.items()} == answers | outcomes
    assert len(answers) == 204


@pytest.mark.parametrize(
    "answer",
    [Answer("42"), Answer("It is 4", "its reply was cut"), Answer(error="it failed"), Answer(error="no", refused=True)],
    ids=str,
)
def test_an_answer_is_given_in_the_form_of_the_host(answer):
    line = {"text": answer.text, "error": answer.error, "refused": answer.refused}
    assert replay_record.answer_payload(line) == answer_entry(answer)


def test_a_cell_ends_for_the_setup_cell_as_for_the_notebook(log):
    run = read_log(log).trajectory
    mine = replay_record.Record(replay_record.lines_of(log), [])
    assert [cell.was_cut_off for cell in mine.cells.values()] == [is_cut_off(cell) for cell in run.cells]


def test_an_earlier_part_of_a_log_has_an_unfinished_cell(log):
    lines = replay_record.lines_of(log)
    end = max(n for n, line in enumerate(lines) if line["type"] == "answer")
    last = [*replay_record.Record(lines[:end], []).cells.values()][-1]
    assert last.was_cut_off
    assert not last.raised


@pytest.mark.parametrize(
    ("source", "cell_id", "expected", "number"),
    [
        ("a", None, 1, 1),
        ("same", None, 2, 2),
        ("same", None, 3, 4),
        ("same", None, 5, 4),
        ("b", None, 1, 3),
        ("edited", None, 3, 3),
        ("edited", "rlm-00000000-t002-c2", 1, 4),
        ("edited", "rlm-00000000-t002-c2-2", 1, 4),
        ("edited", "rlm-00000000-t009-c1", 5, 5),
        ("edited", "vscode-notebook-cell:/x.ipynb#W0", 2, 2),
        ("same", 3, 2, 2),
    ],
)
def test_the_cell_that_runs_is_known_by_id_then_source_then_place(source, cell_id, expected, number):
    run = record((1, 1, "a"), (2, 1, "same"), (3, 2, "b"), (4, 2, "same"))
    assert run.find(source, cell_id, expected) == number


def test_a_child_that_is_not_there_is_named():
    with pytest.raises(replay_record.NotRecordedError, match="holds no child run"):
        replay_record.Record([], [[1, "q1", 0]])


def test_the_setup_cell_needs_the_standard_library_and_ipython_only():
    code = setup_cell.replay_code().content.decode()
    sources = modules_in(code)
    script = sources.pop("rlm_replay_script")
    for source in (setup_cell.source(), code, *sources.values()):
        assert imported(source) <= {*sys.stdlib_module_names, *sources, "IPython"}
    assert imported(script) <= {*sys.stdlib_module_names, *sources, "IPython", "ipykernel", "jupyter_client"}


def modules_in(code):
    """The modules in the file that the setup cell runs, name to source."""
    assigned = (node for node in ast.parse(code).body if isinstance(node, ast.Assign))
    return next(ast.literal_eval(node.value) for node in assigned if node.targets[0].id == "SOURCES")


def test_the_setup_cell_is_a_few_lines():
    assert len(setup_cell.source()) < 2_500


def test_the_replay_code_of_a_folder_is_written_once_and_put_back_when_it_was_altered(tmp_path):
    setup_cell.write_replay_code(tmp_path)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_ino
    setup_cell.write_replay_code(tmp_path)
    assert file.stat().st_ino == written
    file.write_bytes(file.read_bytes()[:-1] + b"#")
    setup_cell.write_replay_code(tmp_path)
    assert file.read_bytes() == setup_cell.replay_code().content
    assert [*tmp_path.iterdir()] == [file]


def imported(source):
    """The packages that a source imports when it runs; what is there for type checkers is not."""
    nodes = [*ast.walk(ast.parse(source))]
    guarded = [node.body for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    hidden = [statement for body in guarded for statement in body]
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    named = [
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node not in hidden and not node.level
    ]
    return {name.split(".")[0] for name in [*plain, *named]}
