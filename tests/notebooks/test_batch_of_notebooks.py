"""`rlm batch task.ipynb`: papermill executes a notebook for each row, with the limits of a batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import nbformat
import pytest
from ipykernel.kernelspec import write_kernel_spec
from loopback import API_KEY, MODEL, Fails, Says
from nbformat.v4 import new_code_cell, new_notebook

from rlm_kernel.cli import parser
from rlm_kernel.errors import ConfigError
from rlm_kernel.papermill.batch import batch_of_notebook, tasks_of_notebook

ASKS = "answer = llm_query(f'{question} about {topic}')"
MODELS = ("--model", MODEL, "--backend-kwarg", "max_retries=0")


@pytest.fixture
def batch(tmp_path, provider):
    """`rlm batch task.ipynb …` in a folder of its own."""
    provider.script = lambda request: f"<{request.prompt}>"
    variables = {**os.environ, **provider.environment}

    def run(*arguments, models=MODELS, environment=MappingProxyType({})):
        command = [sys.executable, "-m", "rlm_kernel.cli", "batch", "task.ipynb", *arguments, *models]
        done = subprocess.run(
            command, cwd=tmp_path, env={**variables, **environment}, capture_output=True, timeout=100, check=False
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return done

    return run


@pytest.fixture
def write(tmp_path):
    """Write the notebook, with these cells after its parameters."""

    def notebook(*cells, kernel="rlm-local"):
        parameters = new_code_cell("topic = ''\nquestion = 'What'\nyear = 0", metadata={"tags": ["parameters"]})
        made = new_notebook(cells=[parameters, *map(new_code_cell, cells)])
        made.metadata["kernelspec"] = {"name": kernel, "display_name": "RLM", "language": "python"}
        nbformat.write(made, tmp_path / "task.ipynb")

    return notebook


def rows_of(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_notebook_is_executed_for_each_row_and_what_failed_again(batch, write, tmp_path, provider):
    write(
        ASKS, "assert topic != 'mice' or __import__('os').path.exists('cheese'), 'no cheese'", "print(answer, year + 1)"
    )
    (tmp_path / "rows.csv").write_text("id,topic,year\na,cats,2001\nb,mice,2002\n")
    command = ("--over", "rows.csv", "-p", "question", "Who", "--out", "out.jsonl")
    first, before = batch(*command), len(provider.requests)
    a, b = rows_of(tmp_path / "out.jsonl")

    assert (first.returncode, before) == (8, 2)
    assert (a["id"], a["answer"], a["error"]) == ("a", "<Who about cats> 2002", None)
    assert (b["id"], b["answer"], b["error"]) == ("b", None, "AssertionError: no cheese (in the cell 4)")
    assert [row["usage"]["model_usage_summaries"][MODEL]["total_calls"] for row in (a, b)] == [1, 1]
    executed = [nbformat.read(tmp_path / row["log"], as_version=4) for row in (a, b)]
    assert [notebook.metadata.papermill.parameters.topic for notebook in executed] == ["cats", "mice"]
    assert "An Exception was encountered" in executed[1].cells[0].source
    assert API_KEY not in nbformat.writes(executed[0])

    (tmp_path / "cheese").touch()
    second = batch(*command)
    assert (second.returncode, len(provider.requests) - before) == (0, 1)
    assert [row["answer"] for row in rows_of(tmp_path / "out.jsonl")] == [
        "<Who about cats> 2002",
        "<Who about mice> 2003",
    ]


@pytest.mark.full
def test_one_budget_holds_over_all_notebooks(batch, write, tmp_path, provider):
    provider.script = lambda _: Says("word", cost=0.25)
    write(ASKS)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"topic": str(n)}) + "\n" for n in range(12)))
    done = batch("--over", "rows.jsonl", "--out", "out.jsonl", "--max-total-budget", "0.5", "--max-concurrent", "2")

    assert (done.returncode, len(provider.requests)) == (3, 2)
    assert b"To go on, run the same command again" in done.stderr


@pytest.mark.full
def test_without_rows_it_is_executed_once_with_parameters_of_a_file(batch, write, tmp_path):
    write("[topic, year]")
    (tmp_path / "given.yaml").write_text("topic: [1, 2]\nyear: 3\n")
    done = batch("-f", "given.yaml", "-p", "year", "4", "-k", "python3", models=())

    assert b"IPKernelApp" not in done.stderr
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (row["id"], row["answer"], row["log"]) == ("task", "[[1, 2], 4]", None)


def test_any_kernel_gets_no_key_which_is_said_once(batch, write, tmp_path):
    write_kernel_spec(tmp_path / "kernels" / "python3")
    write("import os", "[topic, [name for name in os.environ if 'KEY' in name]]", kernel="python3")
    (tmp_path / "rows.csv").write_text("id,topic\na,cats\nb,mice\n")
    done = batch("--over", "rows.csv", environment={"JUPYTER_PATH": str(tmp_path)})
    answers = sorted(json.loads(line)["answer"] for line in done.stdout.splitlines())
    assert answers == ["['cats', []]", "['mice', []]"]
    assert done.stderr.count(b"The kernel 'python3' gets no key of your environment") == 1


def test_every_wrong_row_is_named(write, tmp_path):
    write(ASKS)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"topic": "a"}\n{"topick": "b"}\n3\n{"topic": "c", "not a name": 1}\n')
    with pytest.raises(ConfigError) as caught:
        tasks_of_notebook(tmp_path / "task.ipynb", {}, rows)

    assert str(caught.value).splitlines()[1:] == [
        f"{rows}:2: the notebook has no parameter 'topick'; did you mean 'topic'?",
        f"{rows}:3 is a int: give an object with parameters.",
        f"{rows}:4: 'not a name' is no name of a parameter: rename the column.",
    ]


def test_a_wrong_parameter_of_all_executions_is_one_error(write, tmp_path):
    write(ASKS)
    rows = tmp_path / "rows.csv"
    rows.write_text("topic\na\nb\n")
    with pytest.raises(ConfigError, match=r"^The parameters of all executions: .* 'topick'; did you mean 'topic'\?$"):
        tasks_of_notebook(tmp_path / "task.ipynb", {"topick": 1}, rows)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "null",
        '{"cells": [',
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": null, "cells": []}',
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]}',
    ],
)
def test_a_broken_notebook_is_refused(text, tmp_path):
    (tmp_path / "task.ipynb").write_text(text)
    with pytest.raises(ConfigError, match="task.ipynb cannot be read as a notebook: "):
        tasks_of_notebook(tmp_path / "task.ipynb", {}, None)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [("rlm-lokal", "There is no kernel 'rlm-lokal'; did you mean 'rlm-local'"), (None, "does not name its kernel")],
)
def test_a_wrong_kernel_is_refused_before_anything_is_executed(kernel, message, write, tmp_path):
    write(ASKS)
    path = tmp_path / "task.ipynb"
    made = nbformat.read(path, as_version=4)
    del made.metadata["kernelspec"]
    nbformat.write(made, path)
    with pytest.raises(ConfigError, match=message):
        batch_of_notebook(path, tasks_of_notebook(path, {}, None), {}, {}, kernel)


def test_a_refused_key_ends_the_batch(batch, write, tmp_path, provider):
    provider.script = lambda _: Fails(401, "no such key")
    write("try:\n    llm_query('hi')\nexcept Exception:\n    pass")
    (tmp_path / "rows.csv").write_text("topic\na\nb\nc\n")
    done = batch("--over", "rows.csv", "--out", "out.jsonl", "--max-concurrent", "1")

    assert (done.returncode, len(provider.requests)) == (4, 1)
    first, last = done.stderr.decode().splitlines()[-2:]
    assert first == "rlm: the answers so far are in out.jsonl. To go on, run the same command again."
    assert "no such key" in last


def test_an_edited_cell_and_other_parameters_are_executed_again_and_an_output_is_not(write, tmp_path):
    def digest(**parameters):
        (task,) = tasks_of_notebook(tmp_path / "task.ipynb", parameters, None)
        return task.digest

    write(ASKS)
    before = digest(topic="a")
    made = nbformat.read(tmp_path / "task.ipynb", as_version=4)
    made.cells[1].execution_count = 7
    nbformat.write(made, tmp_path / "task.ipynb")
    assert digest(topic="a") == before != digest(topic="b")
    write(ASKS, "1")
    assert digest(topic="a") != before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task.ipynb", "--question", "Who?"], "takes no --question"),
        (["task.ipynb", "--engine", "dask"], "takes no --engine"),
        (["rows.csv", "-p", "a", "1"], "are for a notebook"),
        (["rows.csv", "--over", "more.csv"], "are for a notebook"),
    ],
)
def test_options_of_questions_and_of_notebooks_do_not_mix(arguments, message):
    args = parser().parse_args(["batch", *arguments])
    with pytest.raises(ConfigError, match=message):
        args.command(args)
