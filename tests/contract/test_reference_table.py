"""The tables of `tests/README.md` and `docs/migration.md`: every test that they name exists; no row lacks one."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
TABLES = (TESTS / "README.md", TESTS.parent / "docs" / "migration.md")
ROWS = [
    line
    for table in TABLES
    for line in table.read_text("utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| the reference ", "| reference 0.1.3 "))
]
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")
REASONS = ("*on purpose*", "*to come*")


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text("utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}


@pytest.mark.parametrize(("file", "name"), sorted({named for row in ROWS for named in NAMED.findall(row)}))
def test_a_test_that_the_table_names_exists(file, name):
    assert (TESTS / file).is_file()
    assert name in names_in(file)


def test_every_row_names_a_test_or_a_reason():
    assert len(ROWS) > 70
    assert [row for row in ROWS if not NAMED.search(row) and not any(reason in row for reason in REASONS)] == []


def test_nothing_that_looks_like_a_test_is_overlooked():
    assert [row for row in ROWS if row.count("::") != len(NAMED.findall(row))] == []
