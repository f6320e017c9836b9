"""What the reference's tests, examples and documents differ in: each is declared with a row of `docs/migration.md`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
from reference_differences import Report, anchors, declared


def test_every_declared_difference_has_its_row():
    assert set(declared().values()) <= anchors()


def test_an_anchor_that_is_on_no_row_is_an_error(tmp_path):
    file = tmp_path / "declared.toml"
    file.write_text("no-such-row = ['test_a.py::test_a']")
    with pytest.raises(ValueError, match=r"declared\.toml: migration\.md has no row with the anchor 'no-such-row'"):
        declared(file)


def test_the_report_tells_apart_what_fails_and_what_is_declared():
    report = Report({"a.py::A::*": "x", "a.py::test_c[1]": "y", "b.py::test_d": "x"})
    report.add("a.py::A::test_a", "failed")
    report.add("a.py::test_b", "passed")
    report.add("a.py::test_c[1]", "passed")
    report.add("c.py::test_e", "failed", "why")
    assert report.problems == [
        "HOLDS, although it is declared to differ (y): a.py::test_c[1]",
        "FAILS c.py::test_e: why",
    ]
    assert list(report.lines({"a.py", "b.py"}))[2:] == [
        "NOTHING DIFFERS as 'a.py::test_c[1]' declares (y)",
        "NOTHING DIFFERS as 'b.py::test_d' declares (x)",
        "   2  holds",
        "   1  differs on purpose: migration.md#x",
        "   1  failed",
        "   3  hold or differ on purpose, of 4",
    ]
