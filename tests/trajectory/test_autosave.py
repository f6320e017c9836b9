"""The notebook is written while the run goes on, whole or not at all, and nothing it meets stops the run."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import nbformat
import pytest
from trajectory.stories import CHILD, cell, codes, text_of, told

from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.notebook import autosave
from rlm_kernel.trajectory.notebook.autosave import NotebookAutosave
from rlm_kernel.trajectory.notebook.setup_cell import replay_code
from rlm_kernel.types import Reply

CODE = replay_code().name


def opening():
    yield events.RunStarted(
        time=0, model="m", sub_model="m", environment="local", question="q", context_type="str", context_length=1,
        max_iterations=2,
    )  # fmt: skip
    yield events.IterationStarted(time=0, iteration=1)


def turn(n):
    yield events.IterationStarted(time=n, iteration=n)
    yield events.ModelReplied(time=n, iteration=n, reply=Reply(f"turn {n}", "m"), seconds=1)


def feed(reader, events):
    for event in events:
        reader(event)


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "rlm-notebook"]


def test_it_is_there_while_the_run_goes_on(tmp_path):
    path = tmp_path / "x.ipynb"
    file = NotebookAutosave(path, {}, seconds=0.01)
    feed(file, opening())
    until(path.is_file)
    assert "The model is writing its reply." in text_of(nbformat.read(path, 4))
    feed(file, turn(1))
    until(lambda: "turn 1" in path.read_text())
    feed(file, turn(2))
    file.close()
    assert "turn 2" in path.read_text()
    nbformat.validate(nbformat.read(path, 4))


def test_what_is_told_last_is_written_even_when_nobody_waits_a_second(tmp_path):
    path = tmp_path / "x.ipynb"
    file = NotebookAutosave(path, {}, seconds=1_000)
    feed(file, opening())
    for n in range(1, 50):
        feed(file, turn(n))
    file.close()
    assert "turn 49" in path.read_text()


def test_a_short_run_is_written_once(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(autosave, "write_pieces", lambda path, text: written.append(text))
    monkeypatch.setattr(autosave, "FIRST_SECONDS", 1_000)
    file = NotebookAutosave(tmp_path / "x.ipynb", {}, seconds=1_000)
    feed(file, opening())
    for n in range(1, 5):
        feed(file, turn(n))
    file.close()
    assert len(written) == 1


def test_it_is_written_seldom_while_the_run_goes_on(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(autosave, "write_pieces", lambda path, text: written.append(text))
    file = NotebookAutosave(tmp_path / "x.ipynb", {}, seconds=1_000)
    feed(file, opening())
    until(lambda: written)
    for n in range(1, 50):
        feed(file, turn(n))
    file.close()
    assert len(written) == 2


def test_a_reader_of_the_file_never_sees_half_of_it(tmp_path):
    path = tmp_path / "x.ipynb"
    file = NotebookAutosave(path, {}, seconds=0.0)
    feed(file, opening())
    until(path.is_file)
    for n in range(1, 60):
        feed(file, turn(n))
        nbformat.validate(nbformat.read(path, 4))
    file.close()
    assert names(tmp_path) == [CODE, "x.ipynb"]


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    file = NotebookAutosave(blocked / "x.ipynb", {}, seconds=0.0)
    feed(file, opening())
    until(lambda: not threads())
    with pytest.raises(OSError, match="file"):
        feed(file, turn(1))
    feed(file, turn(2))
    file.close()


def test_a_failure_at_the_end_is_told_by_close(tmp_path, monkeypatch):
    file = NotebookAutosave(tmp_path / "x.ipynb", {}, seconds=1_000)
    feed(file, opening())
    until((tmp_path / "x.ipynb").is_file)

    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(autosave, "write_pieces", full)
    feed(file, turn(1))
    with pytest.raises(OSError, match="No space left"):
        file.close()
    file.close()
    assert "The model is writing its reply." in (tmp_path / "x.ipynb").read_text()


def test_a_record_that_makes_no_sense_ends_this_reader_only(tmp_path):
    file = NotebookAutosave(tmp_path / "x.ipynb", {}, seconds=1_000)
    feed(file, opening())
    file(events.CellStarted(time=1, iteration=1, cell=1, code="1"))
    file(events.SubcallFinished(time=1, cell=1, query="never begun", failed=0, seconds=1))
    with pytest.raises(OSError, match="could not be made: KeyError"):
        file.close()


def test_a_write_that_fails_leaves_the_notebook_before(tmp_path, monkeypatch):
    path = tmp_path / "x.ipynb"
    autosave.write_pieces(path, [b"before"])
    monkeypatch.setattr(type(path), "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        autosave.write_pieces(path, [b"after"])
    assert names(tmp_path) == ["x.ipynb"]
    assert path.read_text() == "before"


def test_no_thread_is_left(tmp_path):
    file = NotebookAutosave(tmp_path / "x.ipynb", {})
    assert len(threads()) == 1
    assert threads()[0].daemon
    file.close()
    assert threads() == []
    assert names(tmp_path) == []


def test_children_are_written_beside_it_and_only_when_they_change(tmp_path, monkeypatch):
    written = []
    write = autosave.write_pieces

    def noted(path, content):
        written.append(path.name)
        write(path, content)

    monkeypatch.setattr(autosave, "write_pieces", noted)
    replies = [cell(f"rlm_query_batched([{CHILD!r} + n for n in 'abc'])"), cell("1"), "FINAL(1)"]
    story = told(tmp_path, replies, child=[cell("context"), "FINAL(ok)"])
    children = [f"1-1-{n}_child-{word}.ipynb" for n, word in enumerate("abc", 1)]
    assert [child.name for child in story.children()] == children
    assert codes(nbformat.read(story.children()[2], 4))[0].outputs[0].data["text/plain"] == "'child: c'"
    assert written.count(story.path.name) >= 1
    assert {written.count(name) for name in children} <= {1, 2, 3}


def test_a_run_is_no_slower_for_it(tmp_path):
    """The engine's loop hands events over and goes on: a slow disk does not matter to it."""
    release = threading.Event()

    class Slow(NotebookAutosave):
        def _work(self):
            release.wait(60)
            super()._work()

    file = Slow(tmp_path / "x.ipynb", {})
    feed(file, opening())
    for n in range(1, 500):
        feed(file, turn(n))
    assert not (tmp_path / "x.ipynb").exists()
    release.set()
    file.close()
    assert "turn 499" in (tmp_path / "x.ipynb").read_text()


def test_the_start_of_a_log_does_not_wait_for_the_import_of_nbformat(tmp_path):
    code = "import sys; from rlm.logger import RLMLogger as L; L(sys.argv[1]).start({}).close(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "nbformat" not in done.stdout.split()
