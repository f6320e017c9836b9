"""The benchmarks work: they print their tables. How fast anything is, is not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from selection import mostly_full

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


@pytest.mark.parametrize("engine", mostly_full(["process", "dask"], "process"))
@pytest.mark.timeout(300)
def test_a_short_soak_ends_with_equal_sums(tmp_path, engine):
    sizes = ["--minutes", "0", "--completions", "10", "--pace", "0.2", "--share", "0.05", "--engine", engine]
    done, found = soak(tmp_path, *sizes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(found["outcomes"].values()) == 10
    assert found["matrix"]["kernel killed"]["faults"] > 0


@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_longer_soak_judges_growth_and_its_results_are_written(tmp_path, scripts, monkeypatch):
    import soak_report

    done, found = soak(tmp_path, "--minutes", "0.5", "--completions", "60", "--pace", "0.3", "--share", "0.05")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len([row for row in found["samples"] if row["idle"]]) > 4

    monkeypatch.setattr(soak_report, "RESULTS", tmp_path)
    monkeypatch.setattr(soak_report, "PLOT", tmp_path / "plot.svg")
    monkeypatch.setattr(soak_report, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text(f"before\n{soak_report.BEGIN}{soak_report.END}\nafter\n")
    monkeypatch.setattr(sys, "argv", ["soak_report.py", str(tmp_path / "soak.json")])
    soak_report.main()
    assert "| kernel killed |" in (tmp_path / "page.md").read_text()
    assert "</svg>" in (tmp_path / "plot.svg").read_text()


def soak(folder, *sizes):
    file = folder / "soak.json"
    command = [sys.executable, str(BENCHMARKS / "soak.py"), *sizes, "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    return done, json.loads(file.read_text())


def test_the_speed_of_a_batch_is_measured(tmp_path):
    raw = tmp_path / "raw.json"
    command = [sys.executable, str(BENCHMARKS / "batch_speed.py"), "--json", str(raw)]
    subprocess.run([*command, "--questions", "4", "--at-once", "2"], check=True, timeout=100, capture_output=True)
    assert json.loads(raw.read_text())["process"].keys() >= {"a second", "host_ms", "others_ms"}
    subprocess.run([*command, "--curve", "20"], check=True, timeout=100, capture_output=True)
    assert json.loads(raw.read_text())["20"]["resumed call, ms"] > 0
