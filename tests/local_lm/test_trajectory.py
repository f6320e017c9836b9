"""A run of the real model, run again when the model is gone. It is recorded once, by a process that then ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest
from recorded_runs import notebook_beside
from trajectory.comparison import differences

from rlm_kernel.clients.llamacpp import server_process
from rlm_kernel.replay.replayer import replay
from rlm_kernel.trajectory.log.file_names import RECORD, file_beside

pytestmark = pytest.mark.timeout(600)

SCRIPT = """
from rlm import RLM
from rlm.logger import RLMLogger

letters = {{
    "anna.txt": "Thank you for the wonderful evening, it was a pleasure to see you all again.",
    "boris.txt": "The parcel arrived broken and nobody answers the telephone. I want my money back.",
    "clara.txt": "We moved to Oslo in May. The flat is small, but the fjord is close.",
}}
logger = RLMLogger(log_dir="logs")
with RLM("llamacpp", {{"base_url": {url!r}}}, logger=logger, max_iterations=6) as rlm:
    result = rlm.completion(letters, root_prompt="Which file is a complaint? Ask llm_query about each letter.")
print(logger.log_file_path)
"""


@pytest.fixture(scope="module")
def recorded(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    command = [sys.executable, "-c", SCRIPT.format(url=model.base_url)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture
def no_model(recorded, monkeypatch):
    """No server is left, neither of the process that recorded the run nor of ours, and none can be started."""
    server_process.stop_all()
    servers = [p for p in psutil.process_iter(["cmdline"]) if "server_main" in " ".join(p.info["cmdline"] or [])]
    ours = [process for process in servers if os.getpid() in [parent.pid for parent in process.parents()]]
    assert ours == []
    monkeypatch.setenv("RLM_CACHE_DIR", str(recorded.parent / "no weights here"))


def test_the_model_asked_and_answered(recorded):
    lines = [json.loads(line) for line in file_beside(recorded, RECORD).read_text().splitlines()]
    assert lines[-1]["type"] == "finished"
    assert [line for line in lines if line["type"] == "answer"], "it asked no other model, so there is little to replay"


@pytest.mark.parametrize("engine", [None, "rlm"], ids=["plain", "engine"])
def test_its_notebook_runs_through_papermill(recorded, no_model, tmp_path, engine):
    notebook = notebook_beside(recorded)
    done = papermill.execute_notebook(notebook, tmp_path / "out.ipynb", engine_name=engine, progress_bar=False)
    assert differences(nbformat.read(notebook, as_version=4), done) == []


def test_its_replay_is_equal(recorded, no_model):
    report = replay(recorded)
    assert report.equal, str(report)
