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
from loopback import API_KEY, MODEL, Fails

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


def test_it_answers_the_question_over_a_file(mill, provider):
    provider.script = REPLIES
    done, folder = mill("--help-notebook")
    assert b"question: Unknown type" in done.stdout
    (folder / "input.txt").write_text("one two three")
    parameters = {"question": "Which is the second?", "context": "input.txt", "model": MODEL}
    done, folder = mill(*(part for name, value in parameters.items() for part in ("-p", name, value)))
    assert done.returncode == 0, done.stderr.decode()
    saved = json.loads((folder / "result.json").read_text())
    assert (saved["question"], saved["answer"], saved["model"]) == ("Which is the second?", "two", MODEL)
    assert saved["usage"]["model_usage_summaries"][MODEL]["total_calls"] == 3
    written = nbformat.read(folder / "out.ipynb", as_version=4)
    assert written.cells[-1].outputs[-1].text == "two\n"
    assert Path(saved["notebook"]).is_file()
    assert "Which is the second?" in provider.requests[0].said
    assert API_KEY not in nbformat.writes(written)


def test_without_a_model_it_stops_and_says_what_to_give(mill):
    done, folder = mill()
    assert done.returncode != 0
    last = done.stderr.decode().strip().splitlines()[-1]
    assert last.startswith("ConfigError: No model is named: give papermill -p model gpt-5-mini, or -p model scripted")
    assert not (folder / "result.json").exists()


def test_a_script_stands_in_for_a_model_when_that_is_asked_for(mill):
    done, folder = mill("-p", "model", "scripted")
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads((folder / "result.json").read_text())["answer"] == "the longest of all the lines is this one"


def test_the_engine_gives_its_kernel_no_key_and_says_so(mill, provider):
    done, _ = mill("--engine", "rlm", "-p", "model", MODEL)
    said = done.stderr.decode()
    assert "The kernel 'python3' gets no key of your environment" in said
    assert "A notebook that makes an RLM itself, as rlm_task.ipynb does, runs without --engine rlm" in said
    assert "OPENAI_API_KEY" in said.strip().splitlines()[-1]
    assert provider.requests == []


def test_a_model_that_does_not_exist_is_a_short_message(mill, provider):
    provider.script = lambda _: Fails(404, "There is no such model.")
    done, folder = mill("-p", "model", MODEL)
    last = done.stderr.decode().strip().splitlines()[-1]
    assert last.startswith(f"LMError: openai, model '{MODEL}' (HTTP 404): There is no such model.")
    (error,) = [o for c in nbformat.read(folder / "out.ipynb", 4).cells for o in c.get("outputs", []) if "ename" in o]
    assert len("\n".join(error.traceback).splitlines()) <= 5
    assert "result = rlm.completion(text, root_prompt=question)" in error.traceback[0]


def test_a_file_that_is_not_there_is_named(mill):
    done, _ = mill("-p", "context", "contracts.txt", "-p", "model", "scripted")
    assert b"There is no file or folder 'contracts.txt'" in done.stderr


@pytest.fixture
def read():
    """What the notebook reads its context with."""
    names = {"context": "", "model": "scripted"}
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
