"""What a document holds is kept when the time for it is over, and what was not read is said.

These tests end the child that the tests of this folder share, so they are the last that use it.
"""

from __future__ import annotations

import pytest
from by_hand import sheet, word, zipped
from real_files import workbook

SECONDS = 2.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch, shared_reader, tmp_path):
    """Little time for a document, in a child that has imported what it needs."""
    (tmp_path / "a.xlsx").write_bytes(workbook())
    with (tmp_path / "a.xlsx").open("rb") as file:
        assert shared_reader.read(file, "a.xlsx", 1_000).texts
    monkeypatch.setattr(shared_reader, "_max_seconds", SECONDS)


def test_the_paragraphs_of_a_document_that_takes_too_long_are_kept(load):
    texts, said = load("long.docx", word(100_000))
    assert texts["long.docx"] == "x\n" * (len(texts["long.docx"]) // 2)
    assert "rlm: long.docx: the rest was not read: it takes more than 2 seconds" in said


def test_the_files_and_the_rows_before_the_time_was_over_are_kept(load):
    rows = "".join("<row>" + "<c><v>1</v></c>" * 1_000 + "</row>" for _ in range(1_000))
    slow = sheet("<row><c><v>7</v></c></row>" + rows)
    texts, said = load("slow.zip", zipped({"a.txt": "before", "slow.xlsx": slow}))
    assert texts["slow.zip/a.txt"] == "before"
    assert texts["slow.zip/slow.xlsx"].startswith("# table S; columns: 7\n7\n1,1,")
    assert "rlm: slow.zip, slow.zip/slow.xlsx: the rest was not read: it takes more than 2 seconds" in said
