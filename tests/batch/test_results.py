"""The file of results: nothing written is lost, and what was cut is removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlm_kernel.batch.results import ResultFile, TaskResult, failed
from rlm_kernel.errors import ConfigError, LMError


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_each_result_is_on_the_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.jsonl"
    file = ResultFile(path)
    file.add(TaskResult("a", "the answer", digest="d"))

    assert [(line["id"], line["answer"], line["error"], line["cost"]) for line in lines(path)] == [
        ("a", "the answer", None, 0.0)
    ]
    file.close()


def test_a_line_that_was_cut_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    file = ResultFile(path)
    file.add(TaskResult("a", "1", digest="d"))
    file.close()
    with path.open("a") as cut:
        cut.write('{"id": "b", "ans')

    again = ResultFile(path)
    again.add(TaskResult("c", "3", digest="d"))

    assert [line["id"] for line in lines(path)] == ["a", "c"]
    assert again.results.keys() == {"a", "c"}
    again.close()


def test_closing_keeps_the_last_result_of_each_task_in_order(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    file = ResultFile(path)
    error = LMError("down", backend="x", model="y")
    for result in (failed("a", "d", error, None, 1.0), TaskResult("b", "2"), TaskResult("a", "1")):
        file.add(result)
    file.close(["a", "b"])

    assert [(line["id"], line["answer"], line["error"]) for line in lines(path)] == [("a", "1", None), ("b", "2", None)]


def test_a_file_of_something_else_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('{"my": "notes"}\n')

    with pytest.raises(ConfigError, match="notes.jsonl:1 is not a result of a batch"):
        ResultFile(path)
    assert path.read_text() == '{"my": "notes"}\n'


def test_two_batches_do_not_write_one_file(tmp_path: Path) -> None:
    file = ResultFile(tmp_path / "out.jsonl")

    with pytest.raises(ConfigError, match="in use by another batch"):
        ResultFile(tmp_path / "out.jsonl")
    file.close()
    ResultFile(tmp_path / "out.jsonl").close()
