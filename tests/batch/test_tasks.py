"""The tasks of a batch: every source, and a clear error before a model is asked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from rlm_kernel.batch.tasks import Task, tasks_of
from rlm_kernel.errors import ConfigError


def given(source: Any, question: str | None = None, context: Any = None) -> list[Task]:
    return list(tasks_of(source, question, context))


def test_inputs_in_a_list_get_the_question_and_a_number() -> None:
    assert given(["one", ["two"]], "What?") == [Task("1", "What?", "one"), Task("2", "What?", ["two"])]


def test_with_a_context_the_list_holds_questions() -> None:
    assert given(["What?", "Who?"], context="text") == [Task("1", "What?", "text"), Task("2", "Who?", "text")]


def test_a_text_alone_is_a_prompt() -> None:
    (task,) = given(["What is 2 + 2?"])

    assert task.load() == ("What is 2 + 2?", None)


def test_a_dict_that_has_other_fields_is_an_input() -> None:
    assert given([{"name": "x", "id": 3}], "What?") == [Task("1", "What?", {"name": "x", "id": 3})]


def test_rows_of_json_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text of a")
    rows = [{"id": "a", "path": "a.txt", "question": "Who?"}, {"context": [1, 2], "extra": 0}]
    file = tmp_path / "tasks.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")

    first, second = given(file, "What?")

    assert (first.id, first.load()) == ("a", ("text of a", "Who?"))
    assert (second.id, second.load()) == ("2", ([1, 2], "What?"))


def test_rows_of_a_table(tmp_path: Path) -> None:
    file = tmp_path / "tasks.csv"
    file.write_text('id,question,context,other\n7,What?,"a, b\nc",x\n8,,d,y\n', encoding="utf-8-sig")

    assert given(str(file), "Who?") == [Task("7", "What?", "a, b\nc"), Task("8", "Who?", "d")]


def test_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.txt", "sub/a.txt", ".git/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)

    tasks = given(tmp_path, "What?")

    assert [(task.id, task.load()) for task in tasks] == [
        ("b.txt", ("b.txt", "What?")),
        ("sub/a.txt", ("sub/a.txt", "What?")),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "a"}\n{"question": ', ":2 is not JSON"),
        ('{"q": "a"}\n', ":1 has none of the fields"),
        ('{"id": "a", "question": "x"}\n{"id": "a", "question": "y"}', ":2 has the id 'a' of .*:1: give each"),
        ('{"question": 3}', ":1: question is a int"),
        ('{"context": "a", "path": "b"}', "a context and a path"),
        ('{"id": "a"}', ":1 has no question, context or path"),
        ('{"path": "none.txt", "question": "a"}', ":1: the path .* does not exist"),
        ("3", ":1 is a int: give text"),
        ("\n", "no tasks"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(content)

    with pytest.raises(ConfigError, match=message):
        given(file)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 501, 5, []])
def test_an_id_is_printable_text(name: Any) -> None:
    with pytest.raises(ConfigError, match="task 1: the id .* must be text of 1 to 500 printable characters"):
        given([Task(name, "What?")])


def test_a_dict_is_no_list_of_tasks() -> None:
    with pytest.raises(ConfigError, match="The tasks are a dict: give a list"):
        given({"a": "first text"}, "What?")


def test_all_wrong_lines_are_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text("{\n" + '{"question": "a"}\n' + '{"id": "a"}\n' * 25)

    with pytest.raises(ConfigError) as caught:
        given(file)

    first, second, third, *_, last = str(caught.value).splitlines()
    assert first.startswith("26 tasks are wrong")
    assert f"{file}:1 is not JSON" in second
    assert f"{file}:3 has no question" in third
    assert last == "and 6 more"


def test_a_row_of_a_table_is_named_by_its_line_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "tasks.csv"
    file.write_text('id,question,context\na,"two\nlines",\n\nb,,\n')

    with pytest.raises(ConfigError, match=r":5 has no question"):
        given(file)


def test_an_empty_row_of_a_table_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,question,other\n,,x\nx,Who?,\n")
    table = pyarrow.Table.from_pylist([{"id": "x", "question": "Who?"}, {"id": None, "question": ""}])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")

    for name in ("a.csv", "a.parquet"):
        with pytest.raises(ConfigError, match=f"{name}:2 is an empty row: fill or remove it"):
            given(tmp_path / name, "What?")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"id,question\n1,caf\xe9\n", "Save it as UTF-8"),
        ("a.csv", b"a,b\n1,2\n", "none of the columns id, question"),
        ("a.csv", b"id,Question,context\n1,a,b\n", "has 'Question'; did you mean 'question'"),
        (
            "a.jsonl",
            b'{"id": "1", "questions": "a", "context": "b"}\n',
            "a.jsonl:1 has 'questions'; did you mean 'question'",
        ),
        ("a.parquet", b"no parquet", "cannot be read as PARQUET"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_with_the_way(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ConfigError, match=message):
        given(tmp_path / name)


@pytest.mark.parametrize(("name", "message"), [("tasks.xml", "ends in .jsonl"), ("none.jsonl", "does not exist")])
def test_a_file_that_holds_no_tasks_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "tasks.xml").touch()
    with pytest.raises(ConfigError, match=message):
        given(tmp_path / name)


def test_a_sample_is_the_same_for_a_seed_and_keeps_the_order() -> None:
    tasks = tasks_of([f"{n}" for n in range(100)], "What?")
    sample = tasks.sample(5, seed=3)

    assert len(sample) == 5
    assert [task.id for task in sample] == list(sample.ids) == sorted(sample.ids, key=int)
    assert tasks.sample(5, seed=3).ids == sample.ids != tasks.sample(5, seed=4).ids


def test_the_digest_changes_with_the_question_and_the_input(tmp_path: Path) -> None:
    file = tmp_path / "a"
    tasks = [Task("1", "a", "b"), Task("1", "a", "c"), Task("1", "b", "b"), Task("1", "a", path=file)]
    before = [task.digest for task in tasks]
    file.write_text("new")

    assert len(set(before)) == 4
    assert [task.digest for task in tasks[:3]] == before[:3]
    assert tasks[3].digest != before[3]


def test_the_digest_of_a_folder_changes_with_a_file_in_it_and_not_with_the_way_to_it(tmp_path: Path) -> None:
    (tmp_path / "docs" / "sub").mkdir(parents=True)
    (tmp_path / "docs" / "sub" / "a").write_text("a")
    before = Task("1", "a", path=tmp_path / "docs").digest
    (tmp_path / "deep").mkdir()
    again = (tmp_path / "docs").rename(tmp_path / "deep" / "docs")

    assert Task("1", "a", path=again).digest == before
    os.utime(again / "sub" / "a", (1, 1))
    assert Task("1", "a", path=again).digest != before
