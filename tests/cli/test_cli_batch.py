"""`rlm batch` as a person runs it: a process of its own, real kernels, and a provider on this machine."""

from __future__ import annotations

import json
import threading
import time

import psutil
import pyarrow.parquet
import pytest
from loopback import MODEL, Fails, Hangs, Says
from selection import mostly_full

from rlm_kernel.batch.tasks import tasks_of
from rlm_kernel.cli import main

SHOUT = "```repl\nFINAL(context.upper())\n```"
MODEL_OF_TEST = ("--model", MODEL, "--backend-kwarg", "max_retries=0")


@pytest.fixture
def batch(rlm, provider):
    """`rlm batch --model ...` with the loopback provider behind it."""
    rlm.environment |= provider.environment
    provider.script = lambda _: SHOUT

    def run(*arguments):
        done = rlm("batch", *arguments, *MODEL_OF_TEST)
        assert b"Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def write(rlm):
    """Write rows into a file of tasks."""

    def tasks(rows, name="tasks.jsonl"):
        (rlm.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return name

    return tasks


def rows_of(data):
    return [json.loads(line) for line in data.splitlines()]


def about(rows):
    return {row["id"]: row["answer"] for row in rows}


def test_without_out_the_results_of_a_sample_are_lines_on_stdout_and_no_file_is_left(batch, write, rlm):
    tasks = write([{"id": str(n), "context": f"text {n}"} for n in range(50)])
    done = batch(tasks, "--question", "What?", "--sample", "3", "--seed", "7")

    assert done.returncode == 0
    assert about(rows_of(done.stdout)) == {
        name: f"TEXT {name}" for name in tasks_of(rlm.folder / tasks).sample(3, 7).ids
    }
    assert [path.name for path in rlm.folder.iterdir() if path.name != "cache"] == ["tasks.jsonl"]


def test_the_same_command_asks_what_failed_and_new_rows_and_nothing_else(batch, write, provider, rlm):
    provider.script = lambda request: Fails(400, "no luck") if "unlucky" in request.said else SHOUT
    rows = [{"id": "a", "context": "x"}, {"id": "b", "context": "unlucky"}]
    command = (write(rows), "--out", "out.jsonl")
    first = batch(*command)
    provider.script = lambda _: SHOUT
    asked = len(provider.requests)
    write([{"id": "new", "context": "y"}, *rows])
    dry = batch(*command, "--dry-run")
    second = batch(*command)

    assert b"2 tasks with about" in dry.stdout

    assert (first.returncode, second.returncode) == (8, 0)
    assert first.stdout == second.stdout == b""
    assert "1 of 2 tasks have no answer; `error` says why. The same command asks them again." in first.stderr.decode()
    assert len(provider.requests) == asked + 2
    lines = rows_of((rlm.folder / "out.jsonl").read_bytes())
    assert [(row["id"], row["answer"]) for row in lines] == [("new", "Y"), ("a", "X"), ("b", "UNLUCKY")]
    assert lines[0].keys() == {"id", "answer", "error", "cost", "seconds", "usage", "log", "task"}
    assert all((rlm.folder / row["log"]).is_file() for row in lines)


def test_a_folder_with_a_question_and_a_parquet_file_of_the_results(batch, rlm):
    (rlm.folder / "docs").mkdir()
    for name in ("a.txt", "b.txt"):
        (rlm.folder / "docs" / name).write_text(name)
    done = batch("docs", "--question", "What?", "--out", "out.parquet")
    table = pyarrow.parquet.read_table(rlm.folder / "out.parquet").to_pylist()

    assert done.returncode == 0
    assert about(table) == {"a.txt": "A.TXT", "b.txt": "B.TXT"}
    assert all((rlm.folder / row["log"]).is_file() for row in table)
    assert [json.loads(row["usage"])["model_usage_summaries"].keys() for row in table] == [{MODEL}] * 2


def test_a_dry_run_asks_nothing_and_counts_the_sample(batch, write, provider):
    dry = batch(write([{"id": str(n), "context": "four" * 100} for n in range(50)]), "--sample", "5", "--dry-run")

    assert (dry.returncode, provider.requests) == (0, [])
    assert b"5 tasks with about 500 tokens of input." in dry.stdout


def test_a_dry_run_needs_no_key(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "tasks.csv").write_text("id,question\na,Who?\n")
    code = main(["batch", str(tmp_path / "tasks.csv"), "--model", "gpt-5-mini", "--dry-run"])

    assert (code, "1 task with about" in capsys.readouterr().out) == (0, True)


def test_a_seed_without_a_sample_is_refused(tmp_path, capsys):
    assert main(["batch", str(tmp_path), "--model", "m", "--seed", "1"]) == 2
    assert "--seed 1 is that of --sample: give both." in capsys.readouterr().err


def test_every_wrong_row_is_named_with_its_line_and_no_model_is_asked(batch, rlm, provider):
    (rlm.folder / "tasks.jsonl").write_text('{"question": "a"}\n{"question":\n{"q": 1}\n{"path": "none", "id": "x"}\n')
    done = batch("tasks.jsonl", "--out", "out.jsonl")

    assert (done.returncode, provider.requests) == (2, [])
    first, second, third, last = done.stderr.decode().splitlines()
    assert first.startswith("rlm: tasks.jsonl:2 is not JSON")
    assert second == "rlm: tasks.jsonl:3 has none of the fields id, question, context, path: name them so."
    assert third == "rlm: tasks.jsonl:4: the path 'none' does not exist: name a file or folder."
    assert last == "rlm: 3 tasks are wrong, and none was asked."
    assert not (rlm.folder / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("docs", "--out", "docs/out.jsonl"), "name a place outside"),
        pytest.param(("docs", "--out", "out.txt"), "must end in .jsonl or .parquet", marks=pytest.mark.full),
        pytest.param(("none", "--out", "out.jsonl"), "none does not exist", marks=pytest.mark.full),
        pytest.param(("docs", "--max-concurrent", "0"), "max_concurrent=0", marks=pytest.mark.full),
    ],
)
def test_a_wrong_argument_is_refused_before_a_model_is_asked(batch, rlm, provider, arguments, message):
    (rlm.folder / "docs").mkdir()
    (rlm.folder / "docs" / "a.txt").write_text("a")
    done = batch(*arguments)

    assert (done.returncode, provider.requests) == (2, [])
    assert message in done.stderr.decode()


@pytest.mark.full
def test_the_budget_of_all_tasks_ends_the_batch_and_says_how_to_go_on(batch, write, provider, rlm):
    provider.script = lambda _: Says(SHOUT, cost=0.25)
    tasks = write([{"id": str(n), "context": "x"} for n in range(20)])
    done = batch(tasks, "--out", "out.jsonl", "--max-total-budget", "0.5", "--max-concurrent", "1")

    assert done.returncode == 3
    assert (
        "the answers so far are in out.jsonl. To go on, run the same command again with a higher --max-tot"
        in done.stderr.decode()
    )
    assert sum(row["answer"] is not None for row in rows_of((rlm.folder / "out.jsonl").read_bytes())) == 2


@pytest.mark.parametrize(
    "moment", mostly_full(["kernels start", "models answer", "cells run"], "kernels start", "cells run")
)
def test_ctrl_c_ends_it_says_how_to_go_on_and_leaves_no_process(moment, rlm, provider, write, ctrl_c):
    rlm.environment |= provider.environment
    cell = "```repl\nprint('begun')\nllm_query('now')\nwhile True: pass\n```"
    running = threading.Event()

    def script(request):
        if request.prompt == "now":
            running.set()
            return "go"
        return cell if moment == "cells run" else Hangs()

    provider.script = script
    tasks = write([{"id": str(n), "context": "x"} for n in range(20)])
    process = rlm.start("batch", tasks, "--out", "out.jsonl", *MODEL_OF_TEST)
    host = psutil.Process(process.pid)
    if moment == "kernels start":
        while not (rlm.folder / "out_logs").exists() and process.poll() is None:
            time.sleep(0.01)
    elif moment == "models answer":
        provider.wait_for_requests(16, timeout=60)
    else:
        assert running.wait(60)
    below = host.children(recursive=True)
    ctrl_c(process)
    _, shown = process.communicate(timeout=60)

    assert process.returncode == 130
    first, last = shown.decode().splitlines()[-2:]
    assert first == "rlm: the answers so far are in out.jsonl. To go on, run the same command again."
    assert last == "rlm: stopped by Ctrl-C"
    assert b"Traceback" not in shown
    assert psutil.wait_procs(below, timeout=20)[1] == []
