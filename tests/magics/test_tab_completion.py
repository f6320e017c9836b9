"""Tab in a real kernel."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _names(notebook, folder):
    for name in ("some-notes.txt", "some-run.jsonl", "some-run.png"):
        (folder / name).touch()
    (folder / "some-folder").mkdir()
    notebook.run("report, reports = 'a', ['b']\nreader_two = reader")


@pytest.mark.parametrize(
    ("typed", "offers"),
    [
        ("%%rlm --cont", {"--context"}),
        ("%%rlm --max-t", {"--max-timeout", "--max-tokens"}),
        ("%%rlm -c rep", {"report", "reports"}),
        ("%%rlm -c report --context rep", {"report", "reports"}),
        ("%%rlm -c ", {"reader", "reader_two", "report", "reports", "text"}),
        ("%%rlm -b open", {"openai", "openrouter"}),
        ("%%rlm --backend read", {"reader", "reader_two"}),
        ("%%rlm -e loc", {"local"}),
        ("%%rlm --file some", {"some-notes.txt", "some-run.jsonl", "some-run.png", "some-folder/"}),
        ("%rlm re", {"replay", "resume"}),
        ("%rlm config max_i", {"max_iterations"}),
        ("%rlm resume --a", {"--at", "--attachable"}),
        ("%rlm resume some", {"some-run.jsonl", "some-folder/"}),
        ("%rlm model --ba", {"--backend", "--base-url"}),
    ],
)
def test_options_and_names_are_completed(notebook, typed, offers):
    assert set(notebook.complete(typed)) == offers


@pytest.mark.parametrize("typed", ["%%rlm ", "%%rlm -", "%%rlm -c report ", "%rlm resume ", "%rlm model "])
def test_only_options_and_files_are_offered(notebook, typed):
    offered = notebook.complete(typed)
    assert "-b" in offered
    assert [one for one in offered if not one.startswith(("-", "some-")) and not one.endswith("/")] == []


@pytest.mark.parametrize(
    "typed", ["%%rlm --max-calls ", "%%rlm --no-such", "%%rlm -c report\nWhich re", "%rlm last re"]
)
def test_where_there_is_nothing_to_complete_nothing_of_python_is_offered(notebook, typed):
    word = "" if typed.endswith(" ") else typed.split()[-1]
    assert notebook.complete(typed) == [word]


def test_other_cells_are_completed_as_before(notebook):
    assert {"report", "reports"} <= set(notebook.complete("rep"))
    assert "%%rlm" in notebook.complete("%%rl")
