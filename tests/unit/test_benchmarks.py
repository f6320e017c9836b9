"""The benchmarks work: they print their tables. How fast anything is, is not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(*arguments):
    command = [sys.executable, str(BENCHMARKS / "overhead.py"), "--tiny", "--rounds", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.full
def test_a_tiny_run_prints_a_row_for_each_measure(tmp_path):
    raw = tmp_path / "raw.json"
    done = run("--json", str(raw))
    assert done.returncode == 0, done.stderr
    head, _, *rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in head] == ["", "ours: local", "ours: local, pool"]
    samples = json.loads(raw.read_text())["samples"]["ours: local"]
    assert len(samples) == len(rows)
    assert {"first cell", "memory", "children", "fresh cpu"} <= samples.keys()
    assert all(value > 0 for value in samples["first cell"] + samples["turn"] + samples["memory"])


def test_a_python_without_the_reference_is_refused_in_words(tmp_path):
    done = run("--reference", sys.executable, "--json", str(tmp_path / "raw.json"))
    assert done.returncode != 0
    assert "reference_side.py" in done.stderr


def test_the_page_gets_the_table_and_the_plot_of_stored_results(tmp_path, scripts):
    import report

    results = {
        "date": "2026-01-02",
        "rounds": 3,
        "machine": {"cpus": 2},
        "versions": {"ours": {"python": "3.11"}, "reference": {"rlms": "0.1"}},
        "sizes": {"turns": 240, "many": 64},
        "samples": {"ours: local": {"first cell": [0.05]}, "reference: exec": {"first cell": [0.1]}},
    }
    page, picture = tmp_path / "page.md", tmp_path / "plot.svg"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_page(results, page, picture)
    text = page.read_text()
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "×2.00" in text  # noqa: RUF001
    assert "2026-01-02" in text
    assert picture.read_text().startswith("<?xml")


def test_the_guard_names_what_became_slower_than_its_margin(scripts, capsys):
    import guard

    stored = {"turn": 1.0, "query": 1.0}
    assert guard.compare({"turn": 1.4, "query": 2.0}, stored, margin=1.5) == ["query"]
    assert "slower than 1.5 times" in capsys.readouterr().out
    assert guard.compare(stored, stored, margin=1.5) == []
