"""What was recorded in a container runs again in one, and papermill's notebooks ask from there."""

from __future__ import annotations

from pathlib import Path

import papermill
import pytest
from loopback import API_KEY, MODEL
from nbformat.v4 import new_code_cell, new_notebook
from recorded_runs import code, record

from rlm_kernel.replay.replayer import replay

pytestmark = pytest.mark.elsewhere

KERNEL = {"name": "rlm-docker", "display_name": "RLM (Docker)", "language": "python"}

REPLIES = [
    code("import os, random", "print(random.random(), os.listdir('/sys/class/net'))", "print(undefined)"),
    code("answers = llm_query_batched([context[:4], context[4:]])", "print(answers)", "FINAL(answers[0])"),
]


@pytest.fixture
def recorded(tmp_path):
    return record(tmp_path / "logs", REPLIES, environment="docker")


def test_a_replay_runs_in_a_container_as_the_run_did(recorded):
    report = replay(recorded.notebook)
    assert report.equal, str(report)
    assert report.environment == "docker"
    assert "['lo']" in report.results[1].stdout


def test_the_notebook_of_the_run_goes_through_the_engine(recorded, tmp_path):
    papermill.execute_notebook(recorded.notebook, tmp_path / "out.ipynb", engine_name="rlm", progress_bar=False)
    assert replay(tmp_path / "out.ipynb", environment="local").divergences[0].cell == 1


def test_a_notebook_in_a_container_asks_models_and_reads_files_of_its_folder(provider, tmp_path, monkeypatch):
    provider.script = lambda request: f"echo {request.prompt}"
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    Path("data.txt").write_text("of the folder")
    cells = ["import os\nprint(llm_query(open('data.txt').read()))", "print([n for n in os.environ if 'KEY' in n])"]
    done = papermill.execute_notebook(
        new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata={"kernelspec": KERNEL}),
        tmp_path / "out.ipynb",
        {"backend": "openai", "model": MODEL},
        engine_name="rlm",
        progress_bar=False,
        cwd=Path.cwd(),
    )
    assert [cell.outputs[0].text for cell in done.cells[1:]] == ["echo of the folder\n", "[]\n"]
    assert API_KEY not in (tmp_path / "out.ipynb").read_text()
