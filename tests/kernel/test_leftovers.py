"""Two hundred kernels, one after the other, leave nothing in any place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import docker
import psutil
import pytest

from rlm_kernel.provisioners import cgroups, strays

pytestmark = [pytest.mark.anywhere, pytest.mark.full, pytest.mark.timeout(1200)]
KERNELS = 200
AT_ONCE = 4
MADE_ONCE = 5
"""Descriptors that the process keeps."""


@pytest.fixture
def folder(monkeypatch):
    """For temporary files, with a path that is short enough for sockets."""
    made = Path(tempfile.mkdtemp(prefix="left-"))
    monkeypatch.setenv("TMPDIR", str(made))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield made
    shutil.rmtree(made)


def processes():
    return {child.pid for child in psutil.Process().children(recursive=True)}


def groups():
    return {path for _, parent in cgroups._parents() for path in Path(parent).glob(f"{cgroups._of_host(os.getpid())}*")}


def containers(request, variable):
    """The containers with this variable."""
    if "docker_engine" not in request.fixturenames:
        return []
    engine = request.getfixturevalue("docker_engine")
    found = []
    for container in engine.containers(all=True):
        with contextlib.suppress(docker.errors.NotFound):
            found += [v for v in engine.inspect_container(container["Id"])["Config"]["Env"] if v == variable]
    return found


async def test_two_hundred_kernels_leave_nothing(open_session, folder, request):
    async def use(gate):
        async with gate, await open_session({"env": {"TMPDIR": f"{folder}/"}}) as session:
            assert (await session.run("6 * 7")).value == "42"

    gate = asyncio.Semaphore(AT_ONCE)
    await use(gate)  # what is made once stays
    before, made, files = processes(), groups(), psutil.Process().num_fds()
    await asyncio.gather(*(use(gate) for _ in range(KERNELS)))
    async with asyncio.timeout(10):
        while [*folder.glob("rlm-*")] or not processes() <= before or not groups() <= made:
            await asyncio.sleep(0.1)
    assert strays.processes_of(str(folder)) == []
    assert psutil.Process().num_fds() <= files + MADE_ONCE
    assert containers(request, f"TMPDIR={folder}/") == []
    assert [line for line in Path("/proc/net/unix").read_text().splitlines() if str(folder) in line] == []
