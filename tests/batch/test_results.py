"""The file of results: nothing written is lost, and what was cut is removed."""

from __future__ import annotations

import fcntl
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rlm_kernel.batch.results import ResultFile, TaskResult, failed, write_parquet
from rlm_kernel.errors import ConfigError, LMError, RecordingError


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
    assert again.answers.keys() == {"a"}
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


def test_a_log_in_the_folder_of_the_file_has_a_relative_path_and_moves_with_it(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    file = ResultFile(before / "out.jsonl")
    file.add(TaskResult("a", "1", log=str(before / "out_logs" / "a.jsonl")))
    file.add(TaskResult("b", "2", log=str(tmp_path / "elsewhere.jsonl")))
    file.close()
    before.rename(after)
    moved = ResultFile(after / "out.jsonl")

    assert [line["log"] for line in lines(after / "out.jsonl")] == [
        "out_logs/a.jsonl",
        str(tmp_path / "elsewhere.jsonl"),
    ]
    assert moved.answers["a"].log == str(after / "out_logs" / "a.jsonl")
    assert moved.answers["b"].log == str(tmp_path / "elsewhere.jsonl")
    moved.close()


def test_a_full_disk_keeps_the_lines_before_and_says_the_way(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted")
    try:
        file = ResultFile(small / "out.jsonl")
        file.add(TaskResult("b", "1"))
        with pytest.raises(RecordingError, match=r"'a' could not be written.*Make room, and run the same again"):
            file.add(TaskResult("a", "long " * 10_000))
        file.close(["a", "b"])

        assert [line["id"] for line in lines(small / "out.jsonl")] == ["b"]
        assert [one.name for one in small.iterdir()] == ["out.jsonl"]
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_file_that_is_replaced_while_it_is_opened_is_not_written(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "out.jsonl"
    flock = fcntl.flock

    def slow(fd: int, operation: int) -> None:
        path.unlink()
        path.write_text("")
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    with pytest.raises(ConfigError, match="in use by another batch"):
        ResultFile(path)


@pytest.mark.parametrize(
    "text", ['{"id":"1","question":"Who?"}', '{"id": "1", "question": "Who?"}', '{"my": "notes', "x"]
)
def test_a_file_without_a_last_newline_is_not_emptied(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text(text)

    with pytest.raises(ConfigError, match="notes.jsonl:1 is not a result of a batch"):
        ResultFile(path)
    assert path.read_text() == text


def test_a_result_whose_newline_an_editor_has_removed_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    file = ResultFile(path)
    file.add(TaskResult("a", "1"))
    file.close()
    path.write_text(path.read_text().removesuffix("\n"))
    again = ResultFile(path)
    again.add(TaskResult("b", "2"))
    again.close()

    assert [line["id"] for line in lines(path)] == ["a", "b"]


def test_a_first_line_that_was_cut_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text('{"id": "b", "ans')
    ResultFile(path).close()
    assert path.read_text() == ""


def test_an_id_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps({**TaskResult("a", "1").to_dict(), "id": [1]}) + "\n")
    with pytest.raises(ConfigError, match="is not a result of a batch"):
        ResultFile(path)


def test_closing_keeps_the_mode_of_the_file_and_a_link_to_it(tmp_path: Path) -> None:
    path, link = tmp_path / "out.jsonl", tmp_path / "link.jsonl"
    path.touch(0o600)
    link.symlink_to(path)
    file = ResultFile(link)
    for result in (TaskResult("b", "2"), TaskResult("a", "1")):
        file.add(result)
    file.close(["a", "b"])

    assert [line["id"] for line in lines(path)] == ["a", "b"]
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_types_of_a_parquet_file_do_not_depend_on_its_rows(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path, schemas = tmp_path / "out.jsonl", []
    for result in (TaskResult("a", "1 \ud800"), failed("b", "d", LMError("down", backend="x", model="y"), None, 1.0)):
        file = ResultFile(path)
        file.add(result)
        file.close([result.id])
        write_parquet(path, tmp_path / "out.parquet")
        table = parquet.read_table(tmp_path / "out.parquet")
        schemas.append(table.schema)

    assert schemas[0] == schemas[1]
    assert table.to_pylist()[1]["answer"] == "1 \\ud800"
