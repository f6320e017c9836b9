"""The requests of the reference and of ours with its words are equal: `benchmarks/wire.py`."""

import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".cache" / "reference-0.1.3"


@pytest.fixture(scope="module")
def reference():
    """A Python with the reference, which cannot be installed beside us."""
    python = VENV / "bin" / "python"
    if not python.is_file():
        missing = f"{VENV} is missing: python -m venv {VENV}, and install rlms==0.1.3 there (.ci/full does)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return str(python)


@pytest.fixture
def wire(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import wire

    return wire


@pytest.mark.full
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"max_iterations": 3},
        {"orchestrator": False, "user_prologue": "A tip."},
        {"sampling_args": {"temperature": 0.7, "top_p": 0.8}, "sub_sampling_args": {"seed": 1}},
        {"custom_system_prompt": "Rules. {custom_tools_section} {{braces}}"},
    ],
    ids=["as it is", "without turns left", "a prologue", "sampling", "a system prompt"],
)
def test_the_bodies_of_the_requests_are_equal(wire, reference, arguments):
    theirs, said_there = wire.requests_of(reference, wire.REPLIES, **arguments)
    words = wire.words_of(reference)
    ours, said_here = wire.requests_of(sys.executable, wire.REPLIES, prompts=f"reference:{words}", **arguments)
    assert wire.differences(ours, theirs) == []
    assert [json.dumps(body, sort_keys=True) for body in ours.root] == [
        json.dumps(body, sort_keys=True) for body in theirs.root
    ]
    assert said_here == said_there
    turns = arguments.get("max_iterations", 9) + 1
    assert len(ours.root) == turns
    if turns == 10:
        assert len(ours.sub) == 3
        assert any("chars...]" in message["content"] for message in ours.root[-1]["messages"])


def test_a_difference_is_named(wire):
    def provider(*contents, **fields):
        messages = [{"role": "user", "content": content} for content in contents]
        return wire.Provider((), root=[{"messages": messages, **fields}])

    assert wire.differences(provider("a"), provider("a")) == []
    (found,) = wire.differences(provider("a", "b"), provider("a", "c"))
    assert found.startswith("turn 1, message 1:")
    (found,) = wire.differences(provider("a", seed=1), provider("a"))
    assert "seed is 1" in found
