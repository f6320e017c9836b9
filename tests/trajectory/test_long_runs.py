"""What a run keeps in memory does not depend on how many turns and sub-calls it has had."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
from recorded_runs import notebook_beside
from trajectory.long_run import CALLS, TURNS, started, turn
from trajectory.runs import run

from rlm import RecordingError
from rlm.logger import RLMLogger
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.log import logger as logger_module
from rlm_kernel.trajectory.log import reference_format
from rlm_kernel.trajectory.log.reader import events_of_log, read_log
from rlm_kernel.trajectory.notebook.autosave import NotebookAutosave
from rlm_kernel.trajectory.notebook.build import identity_of_log, notebook_of, runs
from rlm_kernel.trajectory.tree import Trajectory
from rlm_kernel.types import CellResult


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
    assert type(completion.metadata) is dict
    assert reference_format.trajectory(read_log(path).trajectory, about) == completion.metadata


def test_the_record_of_a_long_run_is_a_dict(tmp_path, nothing_remembered):
    completion, path = run(tmp_path)
    metadata, whole = completion.metadata, read_log(path).trajectory
    assert json.loads(json.dumps(completion.to_dict()))["metadata"]["iterations"] == metadata["iterations"]
    assert len(metadata["iterations"]) == len(whole.turns)
    assert set(metadata) == {"run_metadata", "iterations"}
    for same in (dict(metadata), {**metadata}, copy.deepcopy(metadata), pickle.loads(pickle.dumps(metadata))):
        assert same == metadata


@pytest.mark.parametrize("write", [json.dumps, dict, pickle.dumps, copy.deepcopy, repr, lambda record: {**record}])
def test_the_record_of_a_long_run_is_read_whatever_comes_first(tmp_path, write):
    def read():
        return {"run_metadata": 1, "iterations": [2]}

    plain, stored = read(), logger_module.StoredRecord(read, run_metadata=1)
    assert write(stored) == write(plain) or pickle.loads(write(stored)) == plain


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(iterations=3),
        lambda record: record.__setitem__("iterations", 3),
        lambda record: record.__ior__({"iterations": 3}),
        lambda record: record.__delitem__("iterations"),
        lambda record: record.clear(),
    ],
)
def test_a_change_of_the_record_of_a_long_run_is_kept(change):
    plain = {"run_metadata": 1, "iterations": [2]}
    stored = logger_module.StoredRecord(plain.copy, run_metadata=1)
    change(stored)
    change(plain)
    assert stored == plain


def test_threads_that_use_a_record_at_once_read_its_log_once():
    reads, begun = [], threading.Barrier(4)

    def read():
        reads.append(1)
        time.sleep(0.05)
        return {"iterations": [2]}

    def use(_):
        begun.wait()
        return len(stored["iterations"])

    stored = logger_module.StoredRecord(read)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(use, range(4))) == [1] * 4
    assert len(reads) == 1


def test_a_record_whose_log_is_gone_says_so(tmp_path, nothing_remembered):
    completion, path = run(tmp_path)
    (tmp_path / path).unlink()
    with pytest.raises(RecordingError, match="no record"):
        completion.metadata["iterations"]


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
