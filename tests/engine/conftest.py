from __future__ import annotations

import pytest

from rlm_kernel.engine import Engine
from rlm_kernel.kernelspecs import environment
from rlm_kernel.plan import Models, Plan
from rlm_kernel.prompt_profiles import LARGE


@pytest.fixture
def events():
    return []


@pytest.fixture
def run(events):
    """Run a completion with a model (and others for sub-calls) and return it; its events are in `events`."""

    async def completion(
        lm, context="some context", question="a question", *, others=(), environment_kwargs=None, **plan
    ):
        where = environment("local", environment_kwargs)
        engine = Engine(Plan(Models(lm, others), where, **{"profile": LARGE, **plan}), events.append)
        return await engine.run(context, question)

    return completion
