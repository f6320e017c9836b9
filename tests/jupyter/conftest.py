from __future__ import annotations

import json

import pytest
from machines import Wire

from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment
from rlm_kernel.types import Answer


class Capitals:
    """Answers every prompt with itself in capitals, after what `before` does."""

    async def before(self):
        pass

    async def answer(self, query):
        await self.before()
        return [Answer(prompt.upper()) for prompt in query.prompts]


@pytest.fixture
def capitals():
    return Capitals()


@pytest.fixture
def wire(jupyter_server):
    with Wire(jupyter_server.port) as cuttable:
        yield cuttable


@pytest.fixture
def open_session(jupyter_server, capitals):
    def opened(**options):
        return Session.open(environment("jupyter", {**jupyter_server.kernel_options, **options}), capitals)

    return opened


@pytest.fixture
async def wired_session(open_session, wire):
    async with await open_session(url=f"http://127.0.0.1:{wire.port}") as live:
        yield live


@pytest.fixture
def kernels(jupyter_server):
    return lambda: json.loads(jupyter_server.get("/api/kernels"))
