"""Agents with a scripted model."""

from __future__ import annotations

import pytest

from rlm import AgentRLM, ScriptedLM


@pytest.fixture
def agent():
    """Makes agents, and closes them after the test."""
    made = []

    def make(replies, **arguments):
        lm = replies if hasattr(replies, "complete") else ScriptedLM(replies)
        made.append(AgentRLM(lm, **arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()
