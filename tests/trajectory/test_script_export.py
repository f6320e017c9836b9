"""`rlm export --to py`: a script that Python runs, with the recorded answers, where nothing of ours is."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from trajectory.stories import cell, environment, told
from trajectory.test_bundle import WITHOUT_US

from rlm_kernel.cli import main


def exported(story, folder, *options):
    folder.mkdir(exist_ok=True)
    assert main(["export", "--to", "py", str(story.path), "-o", str(folder / "run.py"), *options]) == 0
    return folder / "run.py"


def run_script(path):
    known = environment(path.parent)
    (path.parent / "guard" / "sitecustomize.py").write_text(WITHOUT_US)
    command = [sys.executable, str(path)]
    return subprocess.run(command, env=known, capture_output=True, text=True, timeout=100, check=False, cwd="/")


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    replies = [
        cell("from __future__ import annotations\n%time parts = context.split()\nprint('# %% no cell')"),
        cell("first = await allm_query('awaited')\n\n\ntext = '''\n# %% inside\n'''\nfirst"),
        cell("answers = [rlm_query('child: 1 2 3'), len(text)]\nprint(answers)\nundefined_name"),
        cell("import os; os._exit(1)"),
        "FINAL_VAR(answers)",
    ]
    child = [cell("FINAL(llm_query('asked by the child'))")]
    return told(tmp_path_factory.mktemp("story"), replies, child=child)


def test_the_script_runs_and_gives_the_answer(story, tmp_path):
    path = exported(story, tmp_path / "elsewhere")
    text = path.read_text()
    ast.parse(text)
    assert "def rlm_setup" not in text
    assert "import base64" not in text
    done = run_script(path)
    assert done.returncode == 0, done.stderr
    for shown in ("# %% no cell", "'AWAITED'", "['ASKED BY THE CHILD', 13]", "Not run again"):
        assert shown in done.stdout
    assert done.stdout.endswith(f"Answer: {story.response}\n")
    assert "name 'undefined_name' is not defined" in done.stderr


def test_an_edited_script_runs_as_it_is_edited_and_ends_at_the_first_new_error(story, tmp_path):
    path = exported(story, tmp_path / "elsewhere")
    path.write_text(path.read_text().replace("print(answers)\n", "answers = 'edited'\n"))
    assert run_script(path).stdout.endswith("Answer: edited\n")
    path.write_text(path.read_text().replace("# first = await allm_query('awaited')", "# await allm_query('other')"))
    done = run_script(path)
    assert done.returncode == 1
    assert "Cell 2 of the run asks what is not on record, llm_query('other')" in done.stderr
    assert "Answer" not in done.stdout


def test_the_script_of_a_clean_run_has_the_cells_that_its_answer_needs(tmp_path):
    replies = [cell("unused = 1"), cell("a = llm_query('one')"), "FINAL(The answer is ONE.)"]
    story = told(tmp_path / "logs", replies)
    path = exported(story, tmp_path, "--clean")
    assert "unused" not in path.read_text()
    assert run_script(path).stdout.endswith("Answer: The answer is ONE.\n")


def test_a_script_without_its_log_says_so_in_one_message(story, tmp_path):
    path = exported(story, tmp_path / "elsewhere")
    path.write_text(path.read_text().replace(f"rlm_dir = {str(story.log.parent)!r}", "rlm_dir = '/not/here'"))
    done = run_script(path)
    assert done.returncode == 1
    assert done.stderr.startswith("NotRecordedError: The log of this run is not there")
    assert "rlm export --bundle" in done.stderr
    assert len(done.stderr) < 1_500
