"""The states of a run have one name each, wherever a run is shown."""

from __future__ import annotations

import asyncio

import pytest
from viewer import long_logs
from viewer.long_logs import run_in

from rlm_kernel import errors
from rlm_kernel.trajectory import events, states
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.trajectory.notebook.build import identity_of_recording, notebook_of
from rlm_kernel.trajectory.runs.summary import summary_of
from rlm_kernel.viewer import fallback
from rlm_kernel.viewer.log_source import LogOnDisk

ERRORS = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.RLMError)]


@pytest.mark.parametrize("state", states.STATES)
def test_a_state_has_the_same_name_in_the_list_the_record_the_notebook_and_the_folded_text(state, tmp_path):
    log = run_in(state, tmp_path / "run.jsonl")
    recording = read_log(log)
    notebook = notebook_of(recording.trajectory, identity_of_recording(recording))
    ending = next(cell for cell in notebook.cells if cell.metadata.get("rlm", {}).get("role") == "answer")
    assert summary_of(log).state == recording.trajectory.state == notebook.metadata.rlm.outcome == state
    assert ending.metadata.rlm.outcome == state
    if state != "answered":
        assert ending.source.startswith(f"## {state.capitalize()}\n")
        assert f"<b>{state.capitalize()}" in fallback.folded_html(LogOnDisk(log))


@pytest.mark.parametrize("kind", [*ERRORS, asyncio.CancelledError, KeyboardInterrupt, ValueError])
def test_the_name_of_an_error_in_a_log_gives_the_state_of_the_error(kind):
    assert states.state_of_error_name(kind.__name__) == states.state_of_error(kind.__new__(kind))


def test_a_child_without_an_end_is_lost_when_its_parent_has_ended(tmp_path):
    story = long_logs.Story(tmp_path / "run.jsonl")
    story.ask(1, "```repl\nrlm_query('x')\n```")
    story.cell(1, "rlm_query('x')")
    story.add(events.SubcallStarted, cell=1, query="q", kind="rlm_query", model="m", prompts=("x",))
    began = events.RunStarted(model="m", sub_model="m", environment="local", question="x", context_type="str",
                              context_length=1, max_iterations=3)  # fmt: skip
    story.add(events.ChildEvent, cell=1, query="q", index=0, event=began)
    child = read_log(story.path).trajectory.cells[0].calls[0].children[0]
    assert child.state == "running"
    story.add(events.RunFailed, error=asyncio.CancelledError())
    child = read_log(story.path).trajectory.cells[0].calls[0].children[0]
    assert child.state == "lost"
