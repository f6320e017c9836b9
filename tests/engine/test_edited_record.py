"""A run goes on from cells that a person changed."""

from __future__ import annotations

import pytest
from recorded_runs import code, model, record

from rlm import RLM
from rlm_kernel.engine.edits import EditedRecord, reply_with
from rlm_kernel.errors import RecordingError
from rlm_kernel.parsing import parse
from rlm_kernel.trajectory.tree import Cell, Turn
from rlm_kernel.types import Reply


def turn_of(text, *codes):
    cells = [Cell(number, one) for number, one in enumerate(codes, 1)]
    return Turn(1, reply=Reply(text, "root"), cells=cells)


def test_only_the_code_of_the_changed_cell_is_other_in_the_reply():
    text = f"First.\n{code('a = 1')}\nThen.\n{code('b = 2')}\nAnd so on."
    changed = reply_with(turn_of(text, "a = 1", "b = 2"), {2: "b = 3"})
    assert parse(changed).blocks == ("a = 1", "b = 3")
    assert [changed.index(word) for word in ("First.", "a = 1", "Then.", "b = 3", "And so on.")] == sorted(
        changed.index(word) for word in ("First.", "a = 1", "Then.", "b = 3", "And so on.")
    )


def test_a_fence_in_the_changed_code_does_not_end_its_block():
    new = 'text = """\n```python\nx\n```\n"""'
    assert parse(reply_with(turn_of(f"Words.\n{code('a = 1')}", "a = 1"), {1: new})).blocks == (new,)


def test_blocks_that_did_not_run_stay():
    text = f"{code('1 / 0')}\n{code('b = 2')}"
    assert parse(reply_with(turn_of(text, "1 / 0"), {1: "a = 1"})).blocks == ("a = 1", "b = 2")


def test_an_answer_that_was_evaluated_becomes_the_changed_code():
    assert parse(reply_with(turn_of("FINAL(len(context))", "FINAL(len(context))"), {1: "FINAL(7)"})).blocks == (
        "FINAL(7)",
    )


def test_a_cell_of_the_engine_cannot_be_changed():
    with pytest.raises(RecordingError, match="The model did not write cell 1"):
        reply_with(turn_of(code("b = 2"), "import ours", "b = 2"), {1: "x"})


def test_the_run_goes_on_after_the_last_changed_cell_and_no_recorded_question_is_asked(tmp_path):
    run = record(tmp_path, [code("n = 1", "said = llm_query('one')"), code("m = n"), code("FINAL(m)")])
    lm = model(["", "", code("FINAL([said, m])")])
    edited = EditedRecord(run.log, {2: "m = n + 41"}, arguments={"backend": lm})
    assert RLM.resume(edited).response == "['echo: one', 42]"
    assert len(lm.calls) == 1
    assert RLM.resume(edited, at=1, backend=model(["", code("FINAL(n)")])).response == "1"
