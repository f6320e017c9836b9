from __future__ import annotations

import pytest

from rlm_kernel.clients.base import as_base_lm
from rlm_kernel.engine.config import Models, RunConfig
from rlm_kernel.engine.loop import Engine
from rlm_kernel.prompts import LARGE
from rlm_kernel.provisioners.kernelspecs import environment


@pytest.fixture
def events():
    return []


@pytest.fixture
def run(kernel_place, events):
    """Run a completion with a model (and others for sub-calls) and return it; its events are in `events`."""

    async def completion(
        lm, context="some context", question="a question", *, others=(), environment_kwargs=None, schema=None, **config
    ):
        name, options = kernel_place
        where = environment(name, {**options, **(environment_kwargs or {})})
        engine = Engine(
            RunConfig(Models(as_base_lm(lm), tuple(map(as_base_lm, others))), where, **{"profile": LARGE, **config}),
            events.append,
            schema=schema,
        )
        return await engine.run(context, question)

    return completion
