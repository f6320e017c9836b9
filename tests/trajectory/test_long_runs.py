"""What a run keeps in memory does not depend on how many turns and sub-calls it has had."""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest
from pydantic import TypeAdapter
from recorded_runs import notebook_beside
from trajectory.long_run import CALLS, TURNS, started, turn
from trajectory.runs import run

from rlm import RecordingError, RLMChatCompletion, TokenLimitExceededError, UsageSummary
from rlm.logger import RLMLogger
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.log import logger as logger_module
from rlm_kernel.trajectory.log import reference_format
from rlm_kernel.trajectory.log.file_names import record_beside
from rlm_kernel.trajectory.log.reader import events_of_log, read_log
from rlm_kernel.trajectory.log.redaction import Redactor
from rlm_kernel.trajectory.notebook.autosave import NotebookAutosave
from rlm_kernel.trajectory.notebook.build import identity_of_log, notebook_of, runs
from rlm_kernel.trajectory.tree import Trajectory
from rlm_kernel.types import CellResult, StoredTrajectory, held_fields
from rlm_magics.result import RLMResult


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run with sub-calls, a child and a tool: its completion and its log."""
    return run(tmp_path_factory.mktemp("logs"))


@pytest.fixture
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(logger_module, "MAX_REMEMBERED_BYTES", 0)


def living(kind):
    gc.collect()
    return sum(type(one) is kind for one in gc.get_objects())


def test_what_is_on_disk_is_not_kept_in_memory(tmp_path, nothing_remembered):
    answers, results = living(events.SubcallAnswered), living(CellResult)
    log = RLMLogger(tmp_path).start({"max_iterations": TURNS})
    for event in (started(), *(event for number in range(1, TURNS + 1) for event in turn(number))):
        for reader in log.readers:
            reader(event)
    del event
    deadline = time.monotonic() + 20
    while living(events.SubcallAnswered) - answers > 2 * CALLS or living(CellResult) - results > 2:
        assert time.monotonic() < deadline, "the turns stay in memory"
        time.sleep(0.05)  # the notebook has a thread of its own
    log.close()
    assert log.turns == len(log.metadata()["iterations"]) == TURNS


def test_the_record_from_the_log_is_the_one_from_memory(recorded):
    completion, path = recorded
    about = completion.metadata["run_metadata"]
    assert isinstance(completion.metadata, dict)
    assert reference_format.trajectory(read_log(path).trajectory, about) == completion.metadata


def test_the_record_of_a_long_run_is_a_plain_dict_when_it_is_used(tmp_path, nothing_remembered):
    completion, path = run(tmp_path)
    assert is_unread(completion)
    assert isinstance(completion.metadata, dict)
    assert not is_unread(completion)
    assert set(completion.metadata) == {"run_metadata", "iterations"}
    assert len(completion.metadata["iterations"]) == len(read_log(path).trajectory.turns)
    completion.metadata["mine"] = 1
    assert completion.metadata["mine"] == 1


def is_unread(completion):
    return isinstance(held_fields(completion)["metadata"], StoredTrajectory)


def test_a_secret_in_the_answer_of_a_long_run_does_not_read_its_log():
    clean = Redactor({"s3cret-key"}).data(dataclasses.replace(PLAIN, response="the s3cret-key"))
    assert "s3cret" not in clean.response
    long = RLMChatCompletion(**{**held_fields(stored(read=None)), "response": "the s3cret-key"})
    assert repr(Redactor({"s3cret-key"}).data(long)) == repr(clean).replace("<1 turn>", "<in the log>")


STORED = {"run_metadata": 1, "iterations": [2]}


def stored(read=STORED.copy, kind=RLMChatCompletion, **more):
    return kind("m", "input", "answer", UsageSummary(), 1.0, metadata=StoredTrajectory(read), **more)


PLAIN = RLMChatCompletion("m", "input", "answer", UsageSummary(), 1.0, metadata=STORED)


@pytest.mark.parametrize("kind", [RLMChatCompletion, RLMResult])
@pytest.mark.parametrize(
    "use",
    [
        lambda completion: completion.to_dict(),
        lambda completion: dataclasses.asdict(completion)["metadata"],
        lambda completion: json.dumps(completion.metadata),
        lambda completion: TypeAdapter(Any).dump_json(completion.metadata),  # does not call methods of a dict
        lambda completion: pickle.loads(pickle.dumps(completion)).metadata,
        lambda completion: copy.copy(completion).metadata,
        lambda completion: copy.deepcopy(completion).metadata,
        lambda completion: dataclasses.replace(completion, response="b").metadata,
    ],
)
def test_whatever_uses_the_record_of_a_long_run_gets_all_of_it(kind, use):
    assert use(stored(kind=kind)) == use(PLAIN)


def test_a_result_of_a_cell_has_the_fields_of_a_completion_as_plain_data():
    assert stored(kind=RLMResult, notebook="x.ipynb").to_dict() == PLAIN.to_dict()


def test_completions_are_compared_with_their_records():
    assert stored() == stored() == PLAIN
    assert stored(dict) != PLAIN


def test_a_completion_is_shown_without_reading_its_log():
    shown = repr(stored(read=None))
    assert shown == (
        "RLMChatCompletion(root_model='m', response='answer', usage_summary=UsageSummary(no model calls), "
        "execution_time=1.0, metadata=<in the log>)"
    )
    assert "metadata=<1 turn>" in repr(PLAIN)
    assert "notebook='x.ipynb'" in repr(stored(read=None, kind=RLMResult, notebook="x.ipynb"))


def test_threads_that_use_a_record_at_once_read_its_log_once():
    reads, begun = [], threading.Barrier(4)

    def read():
        reads.append(1)
        time.sleep(0.05)
        return {"iterations": [2]}

    def use(_):
        begun.wait()
        return len(completion.metadata["iterations"])

    completion = stored(read)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(use, range(4))) == [1] * 4
    assert len(reads) == 1


def test_a_record_whose_log_is_gone_says_so(tmp_path, nothing_remembered):
    completion, _ = run(tmp_path)
    for file in tmp_path.glob("*.jsonl"):
        file.unlink()
    with pytest.raises(RecordingError, match="no log"):
        _ = completion.metadata


def changed(text):
    return text.replace("QUESTION 0", "QUESTION X", 1)


def cut(text):
    return "".join(text.splitlines(keepends=True)[:-2])


def foreign(text):
    return text.replace("_", "-", 1)


def longer(text):
    return text + text.splitlines(keepends=True)[-1]


def test_a_record_that_is_not_as_it_was_written_is_an_error(tmp_path, nothing_remembered):
    completion, path = run(tmp_path)
    record = record_beside(Path(path))
    text = record.read_text()
    for alter in (changed, cut, foreign, longer):
        record.write_text(alter(text))
        with pytest.raises(RecordingError, match="not as this run wrote it"):
            _ = completion.metadata
    record.write_text(text)
    assert completion.metadata["iterations"]


@pytest.mark.parametrize("kind", [RLMChatCompletion, RLMResult])
def test_a_completion_whose_record_is_gone_is_copied_compared_and_pickled(kind):
    def gone():
        raise RecordingError("no log")

    completion = stored(gone, kind)
    assert completion == copy.copy(completion) == completion
    assert completion != PLAIN
    assert completion != stored(gone, kind)
    assert is_unread(copy.deepcopy(completion))
    with pytest.raises(TypeError, match="unhashable"):
        hash(completion)
    with pytest.raises(RecordingError, match="no log"):
        _ = pickle.loads(pickle.dumps(completion)).metadata


def test_the_record_that_an_error_carries_is_read_when_it_is_used():
    error = TokenLimitExceededError(2, 1)
    assert error.trajectory is None
    error.trajectory = StoredTrajectory(STORED.copy)
    assert pickle.loads(pickle.dumps(error)).trajectory == STORED
    assert type(error.trajectory) is dict


def test_a_notebook_that_grew_has_the_bytes_of_one_made_at_once(recorded, tmp_path):
    log = read_log(recorded[1])
    stream = events_of_log(log.path)
    path = tmp_path / notebook_beside(log.path).name
    growing = NotebookAutosave(path, log.metadata, seconds=0.0)
    for event in stream:
        growing(event)
    growing.close()
    made = runs(Trajectory(stream), identity_of_log(path, log.metadata))
    for whole, identity in made:
        assert (tmp_path / identity.file).read_text("utf-8") == nbformat.writes(notebook_of(whole, identity))


def test_a_notebook_that_grew_counts_what_it_no_longer_holds(tmp_path):
    stream = [started(), *(event for number in range(1, 10) for event in turn(number))]
    path = tmp_path / "x.ipynb"
    growing = NotebookAutosave(path, {"timestamp": "2026-11-20T12:00:00+00:00"})
    for event in stream:
        growing(event)
    growing.close()
    identity = identity_of_log(path, {"timestamp": "2026-11-20T12:00:00+00:00"})
    assert path.read_text("utf-8") == nbformat.writes(notebook_of(Trajectory(stream), identity))
    assert "turn 9, 9 finished cells" in path.read_text("utf-8")
