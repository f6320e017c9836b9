from __future__ import annotations

import json
import os
import sys

import nbformat
import pytest
from loopback import MODEL, Fails
from recorded_runs import code, record

from rlm_kernel.cli import main
from rlm_kernel.installation import install_command
from rlm_kernel.trajectory.log.file_names import stem_of

REPLIES = ["Look.\n" + code("print(len(context))"), code("one = llm_query('one')", "FINAL(one)")]


@pytest.fixture
def run(tmp_path):
    return record(tmp_path / "logs", REPLIES)


def test_replay_says_that_a_run_comes_out_as_it_was(rlm, run):
    done = rlm("replay", str(run.notebook))
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"2 cells ran in local, 1 answer came from the record: equal to the recorded run.\n"
    assert done.stderr == b"rlm: cell 1 runs (1 of 2)\nrlm: cell 2 runs (2 of 2)\n"


def test_replay_names_what_differs_and_its_exit_code_is_7(rlm, run):
    done = rlm("replay", "--trust", "--json", "--quiet", str(run.edit("len(context)", "'other'")))
    assert (done.returncode, done.stderr) == (7, b"")
    report = json.loads(done.stdout)
    assert [(d["kind"], d["cell"]) for d in report["divergences"]] == [("edited", 1), ("output", 1)]
    assert (report["equal"], report["cells"], report["answer"]) == (False, [1, 2], "echo: one")


def test_replay_live_asks_the_backend_that_is_named(rlm, run, provider):
    rlm.environment |= provider.environment
    provider.script = ["from a model"]
    path = str(run.edit("'one'", "'once'"))
    done = rlm("replay", "--trust", "--live", "--backend", "openai", "--model", MODEL, "--quiet", path)
    assert done.returncode == 7
    assert b"1 from models" in done.stdout
    assert b"+stdout: from a model" in done.stdout
    assert [request.prompt for request in provider.requests] == ["once"]


def test_replay_takes_the_context_from_a_file(rlm, tmp_path):
    run = record(tmp_path / "logs", [code("FINAL(len(context))")], context="long " * 10_000)
    (stored,) = tmp_path.glob("logs/contexts/*")
    stored.unlink()
    done = rlm("replay", str(run.log))
    assert (done.returncode, b"is missing" in done.stderr) == (2, True)
    (rlm.folder / "context.txt").write_text("long " * 10_000)
    assert rlm("replay", "--context", "context.txt", str(run.log)).returncode == 0


@pytest.mark.parametrize("command", ["replay", "resume", "show", "export"])
def test_a_file_that_is_no_record_is_named(rlm, command):
    done = rlm(command, "nothing.jsonl")
    assert done.returncode == 2
    assert b"nothing.jsonl" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_model_goes_with_live_only(rlm, run):
    done = rlm("replay", "--backend", "openai", "--model", MODEL, str(run.log))
    assert (done.returncode, b"--live" in done.stderr) == (2, True)


@pytest.mark.parametrize("source", ["log", "notebook"])
def test_show_draws_the_run(rlm, run, source):
    done = rlm("show", str(getattr(run, source)))
    shown = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    for part in ("What is in it?", "Look.", "print(len(context))", "→ 12", "1 llm_query", "one", "echo: one", "answer"):
        assert part in shown
    assert "\x1b" not in shown


def test_show_draws_a_child_by_its_notebook(rlm, tmp_path):
    replies = [code("FINAL(rlm_query('the child'))"), "FINAL(x)"]
    run = record(tmp_path / "parent", replies, max_depth=2, max_iterations=1)
    (child,) = tmp_path.glob("parent/*/1-1-1_the-child.ipynb")
    assert b"the child" in rlm("show", str(run.log)).stdout
    assert b"str of 9 characters" in rlm("show", str(child)).stdout


def test_show_says_where_a_killed_run_ends(rlm, run):
    lines = run.log.read_bytes().splitlines(keepends=True)
    run.log.write_bytes(b"".join(lines[: next(i for i, line in enumerate(lines) if b'"cell_result"' in line) + 1]))
    done = rlm("show", str(run.log))
    assert b"Running: the record ends here" in done.stdout
    assert done.returncode == 0
    os.utime(run.log, (0, 0))
    assert b"Lost: the record ends here" in rlm("show", str(run.log)).stdout


def test_diff_tells_two_runs_apart(rlm, run, tmp_path):
    other = record(tmp_path / "logs", [REPLIES[0], code("one = llm_query('another')", "FINAL(one)")])
    done = rlm("diff", str(run.log), str(other.notebook))
    assert done.returncode == 7, done.stderr.decode()
    assert b"-one = llm_query('one')" in done.stdout.replace(b"-  one", b"-one")
    assert b"another" in done.stdout


def test_diff_of_two_inputs_tells_of_no_ids(rlm, run, tmp_path):
    other = record(tmp_path / "logs", REPLIES, context="another context")
    done = rlm("diff", str(run.log), str(other.log))
    assert done.returncode == 7, done.stderr.decode()
    assert b"text: 15" in done.stdout
    assert b"/id" not in done.stdout


def test_diff_takes_notebooks_without_cell_ids(rlm):
    output = nbformat.v4.new_output("display_data", {"image/png": "AA=="}, metadata={"rlm": {}})
    for name, outputs in (("a", []), ("b", [output])):
        cell = nbformat.v4.new_code_cell("1", outputs=outputs)
        del cell["id"]
        notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
        (rlm.folder / f"{name}.ipynb").write_text(json.dumps(notebook))
    assert rlm("diff", "a.ipynb", "a.ipynb").stdout == b"The two runs are equal.\n"
    done = rlm("diff", "a.ipynb", "b.ipynb")
    assert (done.returncode, b"image/png" in done.stdout) == (7, True), done.stderr.decode()


def test_diff_finds_the_same_run_equal(rlm, run):
    done = rlm("diff", str(run.log), str(run.notebook))
    assert (done.returncode, done.stdout) == (0, b"The two runs are equal.\n")


def test_export_makes_the_notebook_of_a_log(rlm, run):
    before = nbformat.read(run.notebook, as_version=4)
    run.notebook.unlink()
    done = rlm("export", str(run.log))
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() == str(run.notebook)
    assert [c.source for c in nbformat.read(run.notebook, as_version=4).cells] == [c.source for c in before.cells]


def test_export_leaves_out_what_the_answer_does_not_need(rlm, run):
    done = rlm("export", "--clean", str(run.log), "-o", "short.ipynb")
    assert done.returncode == 0, done.stderr.decode()
    assert b"rlm: kept 1 of 2 cells" in done.stderr
    assert rlm("replay", "short.ipynb").returncode == 0


def test_export_writes_a_page(rlm, run):
    done = rlm("export", "--to", "html", str(run.notebook), "-o", "page.html")
    assert done.returncode == 0, done.stderr.decode()
    assert "What is in it?" in (rlm.folder / "page.html").read_text("utf-8")


def test_export_does_not_overwrite_what_it_reads(rlm, run):
    done = rlm("export", str(run.notebook))
    assert (done.returncode, b"--output" in done.stderr) == (2, True)
    assert rlm("export", str(run.log), "-o", "page.html").returncode == 2
    assert b"cannot be written" in rlm("export", str(run.log), "-o", "/proc/nothing/x.ipynb").stderr


def test_resume_goes_on_from_a_turn(rlm, run, provider):
    rlm.environment |= provider.environment
    provider.script = [code("FINAL('another way')")]
    done = rlm("resume", str(run.log), "--at", "1", "--backend", "openai", "--model", MODEL, "--quiet")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"another way\n"
    assert len(provider.requests) == 1
    (log,) = rlm.folder.glob("rlm_logs/*.events.jsonl")
    assert json.loads(log.read_text().splitlines()[0])["forked_from"]["at"] == 1
    assert rlm("replay", str(log)).returncode == 0


def test_diff_without_nbdime_says_how_to_install_it(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nbdime", None)
    assert main(["diff", str(run.log), str(run.log)]) == 2
    assert install_command("notebooks") in capsys.readouterr().err


def test_a_page_without_nbconvert_says_how_to_install_it(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nbconvert", None)
    assert main(["export", "--to", "html", str(run.log)]) == 2
    assert install_command("notebooks") in capsys.readouterr().err


ALIEN = '{"step": 1, "text": "of another tool"}\n'


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["show", "alien.jsonl"], "alien.jsonl: line 1 is not one of ours: its type is None"),
        (["show", "alien.txt"], "'alien.txt' is not a log of a run: give the .jsonl"),
        (["show", "folder"], "'folder' is a folder: name one of its logs (.jsonl). The folder holds no log."),
        (["view", "--no-browser", "alien.jsonl"], "alien.jsonl is not the log of a run"),
        (["export", "--to", "html", "alien.ipynb"], "alien.ipynb is not the notebook of a run"),
    ],
)
def test_what_another_tool_wrote_is_refused_in_one_line(tmp_path, monkeypatch, capsys, command, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("alien.jsonl", "alien.txt"):
        (tmp_path / name).write_text(ALIEN)
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "alien.ipynb")
    assert main(command) == 2
    shown = capsys.readouterr().err
    assert (shown.count("\n"), said in shown) == (1, True), shown
    assert "Error(" not in shown


def test_a_folder_of_logs_names_the_last_one(run, capsys):
    assert main(["show", str(run.log.parent)]) == 2
    assert str(run.log.with_name(f"{run.name}.jsonl")) in capsys.readouterr().err


def test_resume_keeps_the_recorded_model_of_the_same_backend(rlm, provider):
    rlm.environment |= provider.environment
    provider.script = [code("print(1)"), Fails(401, "Incorrect API key")]
    failed = rlm("run", "q", "--model", MODEL, "--backend-kwarg", "max_retries=0")
    (log,) = rlm.folder.glob("rlm_logs/*.events.jsonl")
    assert f"To resume it: rlm resume rlm_logs/{stem_of(log)}.jsonl\n" in failed.stderr.decode()
    provider.script = ["FINAL(done)"]
    done = rlm("resume", str(log), "--backend", "openai", "--base-url", provider.environment["OPENAI_BASE_URL"])
    assert (done.returncode, done.stdout) == (0, b"done\n"), done.stderr.decode()
    assert b"To go on" not in done.stderr
    assert provider.requests[-1].body["model"] == MODEL


def test_a_model_that_no_log_can_hold_is_asked_for(rlm, run):
    done = rlm("resume", str(run.log), "--base-url", "http://localhost:1/v1")
    assert (done.returncode, b"give --backend" in done.stderr) == (2, True)


def test_a_resumed_run_shows_the_prompts_of_what_it_recalls(rlm, run, provider):
    rlm.environment |= provider.environment
    provider.script = ["FINAL(done)"]
    again = [code("one = llm_query('what is one?')"), "FINAL(one)"]
    other = record(run.log.parent / "other", again)
    done = rlm("resume", str(other.log), "--at", "1", "--backend", "openai", "--model", MODEL)
    (line,) = [line for line in done.stderr.decode().splitlines() if "⇒ echo" in line]
    assert "what is one? " in line
