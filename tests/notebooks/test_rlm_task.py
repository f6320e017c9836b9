"""`rlm_task.ipynb` as others start it: by papermill's command, with a model behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from ipykernel.kernelspec import write_kernel_spec
from loopback import API_KEY, MODEL

TASK = Path(__file__).resolve().parents[2] / "notebooks" / "rlm_task.ipynb"
REPLIES = ["```repl\nprint(llm_query('first?'))\n```", "a word", "```repl\nFINAL(context.split()[1])\n```"]


@pytest.fixture
def mill(tmp_path, provider):
    write_kernel_spec(tmp_path / "kernels" / "python3")
    environment = {**os.environ, **provider.environment, "JUPYTER_PATH": str(tmp_path)}
    folder = tmp_path / "work"
    folder.mkdir()

    def run(*arguments):
        command = [sys.executable, "-m", "papermill", str(TASK), "out.ipynb", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=100, check=False)
        return done, folder

    return run


@pytest.mark.parametrize("engine", [(), ("--engine", "rlm")], ids=["plain", "engine"])
def test_it_answers_the_question_over_a_file(mill, provider, engine):
    provider.script = REPLIES
    done, folder = mill("--help-notebook")
    assert b"question: Unknown type" in done.stdout
    (folder / "input.txt").write_text("one two three")
    parameters = {"question": "Which is the second?", "context": "input.txt", "model": MODEL}
    done, folder = mill(*engine, *(part for name, value in parameters.items() for part in ("-p", name, value)))
    assert done.returncode == 0, done.stderr.decode()
    saved = json.loads((folder / "result.json").read_text())
    assert (saved["question"], saved["answer"], saved["model"]) == ("Which is the second?", "two", MODEL)
    assert saved["usage"]["model_usage_summaries"][MODEL]["total_calls"] == 3
    written = nbformat.read(folder / "out.ipynb", as_version=4)
    assert written.cells[-1].outputs[-1].text == "two\n"
    assert Path(saved["notebook"]).is_file()
    assert "Which is the second?" in provider.requests[0].said
    assert API_KEY not in nbformat.writes(written)


def test_a_file_that_is_not_there_is_named(mill):
    done, _ = mill("-p", "context", "contracts.txt")
    assert b"There is no file or folder 'contracts.txt'" in done.stderr


@pytest.fixture
def read():
    """What the notebook reads its context with."""
    names = {"context": ""}
    exec(next(cell.source for cell in nbformat.read(TASK, as_version=4).cells if "def read" in cell.source), names)
    return names["read"]


def test_a_folder_is_read_without_keys_and_the_work_of_others(read, tmp_path):
    for file in (".env", ".git/config", "node_modules/x.js", "sub/a.txt"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("some text")
    (tmp_path / "logo.png").write_bytes(b"\x89PNG\0")
    assert read(str(tmp_path)) == {"sub/a.txt": "some text"}


@pytest.mark.parametrize("text", ["x" * 300, "one two " + "y" * 260, "three words\0more"])
def test_a_text_that_cannot_be_a_path_is_the_context_itself(read, text):
    assert read(text) == text


def test_a_limit_ends_it_and_the_notebook_says_where(mill, provider):
    provider.script = REPLIES
    done, folder = mill("-p", "model", MODEL, "-p", "max_tokens", "5")
    assert done.returncode != 0
    assert b"TokenLimitExceededError" in done.stderr
    assert "An Exception was encountered" in nbformat.read(folder / "out.ipynb", as_version=4).cells[0].source
