from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment
from rlm_kernel.types import Answer


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("elsewhere")


class Echo:
    async def answer(self, query):
        return [Answer(prompt.upper()) for prompt in query.prompts]


@pytest.fixture(autouse=True)
def _engine(request):
    if "no_engine" not in request.keywords:
        request.getfixturevalue("docker_engine")


@pytest.fixture
def docker_session():
    """Opens a session in a container with the given options."""

    def opened(**options):
        return Session.open(environment("docker", options), Echo())

    return opened


@pytest.fixture
def container_of(docker_engine):
    """What the engine tells about the container of a session."""

    def inspected(session):
        return docker_engine.inspect_container(session._kernel._manager.provisioner._container.id)

    return inspected


@pytest.fixture
def gone(docker_engine):
    """Waits until the engine has forgotten a container."""
    from docker.errors import NotFound

    async def waited(name, seconds=15):
        async with asyncio.timeout(seconds):
            while True:
                try:
                    docker_engine.inspect_container(name)
                except NotFound:
                    return
                await asyncio.sleep(0.05)

    return waited
