"""Many runs: the index of a folder, notes, filters, the table in Python and in the terminal."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from viewer.long_logs import Story, run_in
from viewer.many_logs import make_folder

import rlm
from rlm_kernel.cli import main
from rlm_kernel.errors import ConfigError, RecordingError
from rlm_kernel.trajectory.runs import index
from rlm_kernel.trajectory.runs.index import INDEX, Index
from rlm_kernel.trajectory.runs.notes import NOTES, Notes, annotate, read_notes
from rlm_kernel.trajectory.runs.query import Query, runs_with_notes
from rlm_kernel.trajectory.runs.table import runs_in
from rlm_kernel.trajectory.states import STATES
from rlm_kernel.viewer.folder import Folder, Pair


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "logs", 60)


@pytest.fixture
def states(tmp_path):
    for state in STATES:
        run_in(state, tmp_path / f"{state}.jsonl")
    return tmp_path


def names(folder, **asked):
    return [run.summary.name.removesuffix(".jsonl") for run in runs_in(folder, Query.of(asked))]


# -- the index


def test_with_an_index_no_log_is_read(folder, monkeypatch):
    first = Index(folder).summaries()
    monkeypatch.setattr(index, "summary_of", lambda path: pytest.fail(f"{path} was read"))
    assert Index(folder).summaries() == first
    assert len(first) == 60


@pytest.mark.parametrize(
    "content",
    [
        None, b"", b"{", b"[]", b'{"version": 99, "runs": {}}', b'{"version": 1, "runs": {"a.jsonl": [1, {}]}}',
        b"\xff", b'{"version": 1, "runs": ' + b"[" * 100_000,
        b'{"version": 1, "runs": {"x": [1, {"name": "y", "size": 1}]}}',
    ],
)  # fmt: skip
def test_an_index_that_is_missing_or_damaged_is_made_again(folder, content):
    first = Index(folder).summaries()
    (folder / INDEX).unlink()
    if content is not None:
        (folder / INDEX).write_bytes(content)
    assert Index(folder).summaries() == first
    assert len(json.loads((folder / INDEX).read_text())["runs"]) == 60


def test_an_index_that_was_cut_while_it_was_written_is_made_again(folder):
    first = Index(folder).summaries()
    whole = (folder / INDEX).read_bytes()
    (folder / INDEX).write_bytes(whole[: len(whole) // 2])
    assert Index(folder).summaries() == first


def test_a_number_that_is_no_figure_is_not_taken_from_an_index(folder):
    Index(folder).summaries()
    damaged = json.loads((folder / INDEX).read_text())
    for _, summary in damaged["runs"].values():
        summary["cost"] = 1e300
    (folder / INDEX).write_text(json.dumps(damaged))
    assert all(one.cost is None or one.cost < 100 for one in Index(folder).summaries())


def test_a_log_that_changed_or_went_is_noticed(tmp_path):
    growing, gone = Story(tmp_path / "growing.jsonl"), Story(tmp_path / "gone.jsonl")
    kept = Index(tmp_path)
    assert {one.state for one in kept.summaries()} == {"running"}
    growing.finish("done")
    gone.path.unlink()
    for known in (kept, Index(tmp_path)):
        assert [(one.name, one.answer) for one in known.summaries()] == [("growing.jsonl", "done")]


def test_several_writers_of_an_index_leave_a_whole_one(folder):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: Index(folder).summaries(), range(8)))
    assert all(one == found[0] for one in found)
    assert len(json.loads((folder / INDEX).read_text())["runs"]) == 60
    assert not list(folder.glob(".*.part"))


def test_a_folder_that_cannot_be_written_to_is_listed_without_an_index(folder):
    (folder / INDEX).mkdir()
    assert len(Index(folder).summaries()) == 60


def test_a_link_out_of_the_folder_is_not_listed(folder, tmp_path):
    outside = Story(tmp_path / "outside.jsonl")
    (folder / "link.jsonl").symlink_to(outside.path)
    assert "link.jsonl" not in {one.name for one in Index(folder).summaries()}


def test_a_run_without_an_answer_has_the_cost_of_its_calls(states):
    cost = {run.summary.state: (run.summary.cost, run.summary.calls) for run in runs_in(states, Query())}
    assert cost["limit"] == cost["stopped"] == cost["lost"] == (pytest.approx(0.0086), 4)


def test_all_turns_of_a_run_without_an_answer_are_counted(states):
    counted = {run.summary.state: run.summary.turns for run in runs_in(states, Query())}
    assert counted == {"answered": 1} | dict.fromkeys(set(STATES) - {"answered"}, 2)


def test_two_folders_keep_their_notes_apart(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run_in("answered", tmp_path / name / "run.jsonl")
    annotate(tmp_path / "a" / "run.jsonl", add_tags=["left"])
    pair = Pair(tmp_path / "a" / "run.jsonl", tmp_path / "b" / "run.jsonl")
    assert {run.summary.name: run.notes.tags for run in pair.runs()} == {"a/run.jsonl": ("left",), "b/run.jsonl": ()}


def test_a_stopped_run_has_no_error_to_show(states):
    (run,) = runs_in(states, Query(state="stopped"))
    assert run.summary.error == ""


# -- notes


def test_tags_a_note_and_a_thumb_are_kept_beside_the_logs(states):
    log = states / "failed.jsonl"
    annotate(log, add_tags=["slow", "to look at"], thumb="down")
    annotate(log, remove_tags=["slow"], note="The provider was down.")
    assert read_notes(states) == {"failed": Notes(("to look at",), "The provider was down.", "down")}
    annotate(log, thumb="none", note="")
    assert read_notes(states)["failed"] == Notes(("to look at",))


def test_writers_of_notes_lose_nothing(states):
    log = states / "failed.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: annotate(log, add_tags=[f"tag {number}"]), range(40)))
    assert set(read_notes(states)["failed"].tags) == {f"tag {number}" for number in range(40)}


def test_a_writer_of_notes_that_was_killed_loses_its_line_only(states):
    annotate(states / "failed.jsonl", add_tags=["first"])
    with (states / NOTES).open("ab") as file:
        file.write(b'{"run": "failed", "add_ta')
    annotate(states / "failed.jsonl", add_tags=["second"])
    assert read_notes(states)["failed"].tags == ("first", "second")


def test_odd_notes_are_no_notes(states):
    odd = [{"run": 1}, {"run": "a", "add_tags": 3, "note": [], "thumb": "sideways"}, {"run": "b", "add_tags": ["", 7]}]
    (states / NOTES).write_text("\n".join([*map(json.dumps, odd), "no json", "[]"]))
    assert read_notes(states)["a"] == Notes()


@pytest.mark.parametrize("wrong", [{"add_tags": [""]}, {"add_tags": ["a\nb"]}, {"add_tags": ["x" * 61]},
                                   {"add_tags": "baseline"}, {"remove_tags": "x"}, {"add_tags": [*map(str, range(51))]},
                                   {"note": "x" * 4_001}, {"thumb": "sideways"}])  # fmt: skip
def test_a_note_that_cannot_be_is_refused(states, wrong):
    with pytest.raises(ConfigError):
        annotate(states / "failed.jsonl", **wrong)
    assert not (states / NOTES).exists()


# -- filters


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"state": "stopped"}, {"stopped"}),
        ({"search": "RUN limit"}, {"limit"}),
        ({"search": "forty"}, {"answered"}),
        ({"search": "a note here"}, {"lost"}),
        ({"tag": "odd"}, {"failed", "lost"}),
        ({"tag": "odd", "thumb": "up"}, {"lost"}),
        ({"model": "LARGE"}, set(STATES)),
        ({"model": "small"}, set()),
        ({"since": "2026-11-20", "until": "2026-11-20"}, set(STATES)),
        ({"since": "2026-11-22"}, set()),
        ({"max_cost": "0.005"}, {"answered"}),
        ({"min_cost": 0.005}, set(STATES) - {"answered"}),
    ],
)
def test_a_filter_leaves_the_runs_that_are_meant(states, asked, found):
    annotate(states / "failed.jsonl", add_tags=["odd"])
    annotate(states / "lost.jsonl", add_tags=["odd"], thumb="up", note="A note here")
    assert set(names(states, **asked)) == found


def test_the_list_is_sorted_by_a_column_and_what_has_no_value_is_last(states):
    assert names(states, sort="state", descending=False) == list(STATES)
    assert names(states, sort="name") == sorted(STATES, reverse=True)
    annotate(states / "lost.jsonl", thumb="up")
    assert names(states, sort="thumb")[0] == "lost"
    assert names(states, sort="thumb", descending=False)[0] == "lost"


@pytest.mark.parametrize("wrong", [{"state": "unfinished"}, {"sort": "color"}, {"since": "yesterday"},
                                   {"min_cost": "x"}, {"max_cost": "nan"}, {"thumb": "left"}])  # fmt: skip
def test_a_filter_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError):
        Query.of(wrong)


def test_notes_are_those_of_the_run_not_of_the_file(tmp_path):
    story = Story(tmp_path / "run.events.jsonl")
    (tmp_path / "run.jsonl").write_text("{}")
    annotate(tmp_path / "run.jsonl", add_tags=["mine"])
    (run,) = runs_with_notes(Index(tmp_path).summaries(), read_notes(tmp_path))
    assert (run.summary.name, run.notes.tags) == (story.path.name, ("mine",))


# -- in Python


def test_runs_is_a_data_frame(states):
    pd = pytest.importorskip("pandas")
    table = rlm.runs(states, sort="name", descending=False)
    assert isinstance(table, pd.DataFrame)
    assert list(table.state) == sorted(STATES)
    assert str(table.began.dtype).endswith("UTC]")
    assert table.set_index("state").cost["answered"] == pytest.approx(0.0046, abs=0.001)
    assert rlm.runs(states, state="running", search="nothing").empty
    assert rlm.runs(states, state="running", search="nothing").cost.dtype == float
    assert len(rlm.runs(states, until="9999-12-31")) == 6


def test_without_pandas_runs_are_records(states, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    (record,) = rlm.runs(states, state="answered")
    assert (record["name"], record["answer"], record["tags"]) == ("answered.jsonl", "Forty-two", [])
    assert record["log"] == str(states / "answered.jsonl")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        rlm.runs(tmp_path / "nowhere")
    with pytest.raises(RecordingError):
        rlm.annotate(tmp_path / "nothing.jsonl", thumb="up")


# -- in the terminal


def test_the_terminal_lists_and_counts_runs(states, capsys):
    annotate(states / "failed.jsonl", add_tags=["odd"])
    assert main(["runs", str(states), "--plot"]) == 0
    shown = capsys.readouterr().out
    for state in STATES:
        assert f"A run that is {state}?" in shown
    assert "odd" in shown
    assert "6 runs: " in shown
    assert "large-model 6 17%" in " ".join(shown.split())
    assert main(["runs", str(states), "--limit", "2", "--columns", "name,turns"]) == 0
    assert "… and 4 more" in capsys.readouterr().out


def test_the_terminal_writes_json_and_csv(states, capsys):
    assert main(["runs", str(states), "--format", "json", "--state", "limit"]) == 0
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["state"], line["began"]) == ("limit", "2026-11-20T09:00:00+00:00")
    assert main(["runs", str(states), "--format", "csv"]) == 0
    assert {row["state"] for row in csv.DictReader(capsys.readouterr().out.splitlines())} == set(STATES)


@pytest.mark.parametrize("note", ["\u202e=1", "\x00=1", " =1", "\ufeff+1", "\n-1"])
def test_no_hidden_sign_makes_a_cell_of_the_csv_a_formula(states, capsys, note):
    annotate(states / "failed.jsonl", note=note)
    assert main(["runs", str(states), "--format", "csv", "--state", "failed"]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines(keepends=True))
    assert row["note"].startswith("'")


def test_a_log_whose_name_is_not_unicode_can_be_opened(states):
    (states / "failed.jsonl").rename(states / os.fsdecode(b"n\xff.jsonl"))
    log = Folder(states).log("n\ufffd.jsonl")
    assert log is not None
    assert log.stat().st_size


def test_no_cell_of_the_csv_is_a_formula(states, capsys):
    annotate(states / "failed.jsonl", add_tags=["=1+1", "@x"], note="=cmd|' /C calc'!A0\x1b[31m")
    assert main(["runs", str(states), "--format", "csv", "--state", "failed"]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert (row["tags"], row["note"][:7]) == ("'=1+1;@x", "'=cmd|'")
    assert "\x1b" not in row["note"]


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00", 1e14])
def test_a_time_that_is_none_spoils_no_list(states, monkeypatch, capsys, zone, when):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    log = states / "failed.jsonl"
    if isinstance(when, float):
        Index(states).summaries()
        saved = json.loads((states / INDEX).read_text())
        saved["runs"][log.name][1]["began"] = when
        (states / INDEX).write_text(json.dumps(saved))
    else:
        log.write_text(re.sub(r'"timestamp": ?"[^"]*"', f'"timestamp": "{when}"', log.read_text(), count=1))
    assert main(["runs", str(states)]) == 0
    assert "6 runs: " in capsys.readouterr().out
    assert len(rlm.runs(states)) == 6
    monkeypatch.undo()
    time.tzset()


def test_the_terminal_changes_notes(states, capsys):
    log = str(states / "failed.jsonl")
    assert main(["runs", log, "--add-tag", "odd", "--set-thumb", "up", "--note", "Look again."]) == 0
    assert capsys.readouterr().out == "👍 · odd · Look again.\n"
    assert main(["runs", str(states), "--tag", "odd", "--thumb", "up", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["note"] == "Look again."


@pytest.mark.parametrize("wrong", [["--columns", "name,color"], ["--state", "open"], ["--add-tag", "x"]])
def test_the_terminal_names_what_is_wrong(states, capsys, wrong):
    path = [] if wrong[0] == "--add-tag" else [str(states)]
    assert main(["runs", *path, *wrong]) == 2
    assert capsys.readouterr().err.startswith("rlm: ")
