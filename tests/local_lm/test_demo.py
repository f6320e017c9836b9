"""`rlm demo` with the recorded replies of the model. It runs once; every test here reads that run."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def demo(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "rlm_kernel.cli", "demo", "--base-url", model.base_url]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=800,
        cwd=folder,
        env={**os.environ, "COLUMNS": "100"},
        check=False,
    )


def test_the_code_questions_come_out_right(demo):
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "2 of 2 code questions right" in demo.stdout + demo.stderr


def test_the_judgement_is_reported_whichever_way_it_went(demo):
    assert re.search(r"[01] of 1 judgement questions right", demo.stdout + demo.stderr)


def test_the_run_is_shown_with_its_code_its_sub_calls_and_its_cost(demo):
    shown = demo.stdout + demo.stderr
    assert "llm_query to qwen2.5-coder-1.5b-instruct" in shown
    assert "for path, source in context.items():" in shown
    assert re.search(r"\d+ model calls · [\d,]+ tokens in, [\d,]+ out", shown)
