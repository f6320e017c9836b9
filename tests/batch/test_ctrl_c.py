"""Ctrl-C in a Python program that runs a batch. `rlm batch` is in `tests/cli/test_cli_batch.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from selection import mostly_full

PROGRAM = """
import asyncio, sys, threading, time
from rlm import RLM, ScriptedLM
from rlm_kernel.trajectory.notebook import autosave

BUSY = "```repl\\nllm_query('running')\\nwhile True: pass\\n```"

def reply(messages):
    if messages[-1]["content"] == "running":
        print("running", flush=True)
    return BUSY

tasks, out = [str(n) for n in range(2)], sys.argv[2]

def wait_for_results():
    autosave.write_pieces = lambda *_: threading.Event().wait()  # a disk that hangs
    list(RLM(ScriptedLM(reply)).map(tasks, "What?", out=out))

def work_in_the_loop():
    for _ in RLM(ScriptedLM(lambda _: "```repl\\nFINAL(1)\\n```")).map(tasks, "What?", out=out):
        print("running", flush=True)
        time.sleep(600)

async def wait_asynchronously():
    async for _ in RLM(ScriptedLM(reply)).amap(tasks, "What?", out=out):
        pass

made = globals()[sys.argv[1]]()
if made is not None:
    asyncio.run(made)
"""


@pytest.mark.parametrize(
    "where",
    mostly_full(
        ["wait_for_results", "work_in_the_loop", "wait_asynchronously"], "wait_for_results", "work_in_the_loop"
    ),
)
def test_it_ends_the_program_without_waiting_for_files_and_says_how_to_go_on(where: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, where, "out.jsonl"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, start_new_session=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == b"running\n"
            below = psutil.Process(program.pid).children(recursive=True)
            os.killpg(program.pid, signal.SIGINT)
            _, shown = program.communicate(timeout=60)
        finally:
            program.kill()

    assert program.returncode != 0
    assert shown.decode().splitlines()[-2:] == [
        "KeyboardInterrupt",
        "rlm: the answers so far are in out.jsonl. To go on, run the same program again.",
    ]
    assert psutil.wait_procs(below, timeout=20)[1] == []
