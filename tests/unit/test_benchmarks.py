"""The overhead benchmark works: it prints its table. How fast anything is, is not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

OVERHEAD = Path(__file__).parents[2] / "benchmarks" / "overhead.py"


def run(*arguments):
    command = [sys.executable, str(OVERHEAD), "--tiny", "--rounds", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.full
def test_a_tiny_run_prints_a_row_for_each_measure(tmp_path):
    raw = tmp_path / "raw.json"
    done = run("--json", str(raw))
    assert done.returncode == 0, done.stderr
    head, _, *rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in head] == ["", "", "ours: local", "goal"]
    assert all(float(row[2].replace(",", "")) > 0 for row in rows)
    samples = json.loads(raw.read_text())["seconds"]["ours: local"]
    assert len(samples) == len(rows)
    assert len(samples["cell"]) == 2


def test_a_python_without_the_reference_is_refused_in_words():
    done = run("--reference", sys.executable)
    assert done.returncode != 0
    assert "reference_side.py" in done.stderr
