"""The notebook of a run that jupytext wrote as text and read back is replayed."""

from __future__ import annotations

import nbformat
import pytest
from trajectory.stories import cell, codes, executed, told

from rlm_kernel.cli import main
from rlm_kernel.replay.replayer import replay

jupytext = pytest.importorskip("jupytext")


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    replies = [
        cell("%time parts = context.split()\n\n\nprint('two lines')\n\n"),
        cell("%%capture seen\nprint(1)"),
        cell("first = await allm_query('awaited')\n# a comment\nfirst"),
        cell("rlm_query('child: 1 2 3')"),
        cell("FINAL([parts, first])"),
    ]
    return told(tmp_path_factory.mktemp("story"), replies, child=[cell("FINAL(llm_query('asked by the child'))")])


def there_and_back(path, form):
    text = jupytext.writes(nbformat.read(path, 4), fmt=form)
    back = path.with_name(f"back-{path.name}")
    nbformat.write(jupytext.reads(text, fmt=form), back)
    assert "rlm" not in nbformat.read(back, 4).metadata
    return back


@pytest.mark.parametrize("form", ["py:percent", "py:light", "md"])
def test_a_round_trip_replays(story, form):
    report = replay(there_and_back(story.path, form))
    assert report.equal, report
    assert sorted(report.results) == [1, 2, 3, 4, 5]


def test_a_round_trip_of_a_childs_notebook_replays(story):
    (child,) = story.children()
    report = replay(there_and_back(child, "py:percent"))
    assert report.equal, report
    assert report.answer == "ASKED BY THE CHILD"


def test_a_round_trip_runs_in_a_stock_client_and_is_exported(story, tmp_path):
    back = there_and_back(story.path, "py:percent")
    ran = executed(nbformat.read(back, 4), tmp_path)
    assert "AWAITED" in str(codes(ran)[2].outputs)
    assert main(["export", str(back), "-o", str(tmp_path / "again.ipynb")]) == 0
    assert nbformat.read(tmp_path / "again.ipynb", 4).metadata.rlm.log == f"{story.name}.jsonl"


def test_a_cell_that_was_edited_as_text_counts_as_edited(story):
    back = there_and_back(story.path, "py:percent")
    notebook = nbformat.read(back, 4)
    codes(notebook)[4].source = "FINAL('edited')"
    nbformat.write(notebook, back)
    report = replay(back, trust=True)
    assert [(one.kind, one.cell) for one in report.divergences] == [("edited", 5), ("answer", 5)]
