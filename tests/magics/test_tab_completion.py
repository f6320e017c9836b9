"""Tab in a real kernel."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _names(notebook):
    notebook.run("report, reports = 'a', ['b']\nreader_two = reader")


@pytest.mark.parametrize(
    ("typed", "offers"),
    [
        ("%%rlm --cont", {"--context"}),
        (
            "%%rlm --max-",
            {"--max-budget", "--max-depth", "--max-errors", "--max-iterations", "--max-timeout", "--max-tokens"},
        ),
        ("%%rlm -c rep", {"report", "reports"}),
        ("%%rlm -c report --context rep", {"report", "reports"}),
        ("%%rlm -b open", {"openai", "openrouter"}),
        ("%%rlm --backend reader", {"reader", "reader_two"}),
        ("%%rlm -e loc", {"local"}),
        ("%rlm re", {"replay", "resume"}),
        ("%rlm config max_i", {"max_iterations"}),
        ("%rlm resume --a", {"--at", "--attachable"}),
        ("%rlm model --ba", {"--backend", "--base-url"}),
    ],
)
def test_options_and_names_are_completed(notebook, typed, offers):
    assert offers <= set(notebook.complete(typed))
