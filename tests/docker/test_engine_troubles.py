"""What is said when the engine is absent, refuses, has a full disk or goes away, and that a kernel comes back."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import pytest
from second_engine import SecondEngine
from selection import mostly_full

from rlm_kernel.errors import ConfigError, KernelError
from rlm_kernel.installation import install_command
from rlm_kernel.provisioners.docker import daemon as provisioner
from rlm_kernel.provisioners.docker.images import kernel_image
from rlm_kernel.provisioners.kernelspecs import environment

NO_ENGINE = pytest.mark.no_engine


@pytest.fixture
def elsewhere(monkeypatch, docker_client_closed):
    """Another engine than the usual one."""

    def at(host):
        monkeypatch.setenv("DOCKER_HOST", host)

    return at


@pytest.fixture
def docker_client_closed():
    before = dict(provisioner._clients)
    yield
    for host in provisioner._clients.keys() - before.keys():
        provisioner._clients.pop(host).close()


@NO_ENGINE
async def test_an_absent_engine_says_how_to_start_it(docker_session, elsewhere, tmp_path):
    elsewhere(f"unix://{tmp_path}/docker.sock")
    with pytest.raises(KernelError, match=r"No Docker engine answers at unix:///.*systemctl start docker.*DOCKER_HOST"):
        await docker_session()


@NO_ENGINE
async def test_a_host_that_is_none_is_a_wrong_setting(docker_session, elsewhere):
    elsewhere("nonsense://there")
    with pytest.raises(ConfigError, match="DOCKER_HOST"):
        await docker_session()


@NO_ENGINE
async def test_an_engine_that_is_not_for_us_says_who_may_use_it(docker_session, elsewhere):
    folder = Path("/tmp") / f"rlm-closed-{os.getpid()}"
    folder.mkdir(mode=0o755)
    closed = socket.socket(socket.AF_UNIX)
    try:
        closed.bind(str(folder / "s"))
        closed.listen()
        (folder / "s").chmod(0o000)
        elsewhere(f"unix://{folder}/s")
        as_nobody = os.geteuid() == 0
        import docker.transport  # noqa: F401 (nobody may not read it)

        if as_nobody:
            os.seteuid(65534)
        try:
            with pytest.raises(KernelError, match="add yourself to the group docker"):
                provisioner.engine()
        finally:
            if as_nobody:
                os.seteuid(0)
    finally:
        closed.close()
        shutil.rmtree(folder)


@NO_ENGINE
def test_a_missing_client_names_the_package(monkeypatch):
    monkeypatch.delitem(sys.modules, "docker", raising=False)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    with pytest.raises(ConfigError, match=re.escape(install_command("docker"))):
        environment("docker", None)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mounts": {"/there/is/no/such/folder": "/in"}}, "see mounts"),
        ({"network": "rlm-test-no-such-network"}, "docker network ls"),
        ({"gpus": "all"}, "NVIDIA"),
    ],
)
async def test_what_the_engine_refuses_names_the_option(docker_session, options, says):
    with pytest.raises(ConfigError, match=says):
        await docker_session(**options)


async def test_an_engine_that_sees_another_temporary_directory_is_reached_over_the_relay(
    docker_session, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", "/proc/self/cwd")  # for the engine that is another one
    async with await docker_session() as session:
        assert (await session.run("1 + 1")).value == "2"
    with pytest.raises(ConfigError, match="does not see /proc/self/cwd/rlm-.*transport='relay'"):
        await docker_session(transport="ipc")


@pytest.fixture(scope="module")
def second_engine(docker_engine):
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        if os.environ.get("CI"):
            pytest.fail("CI runs as root, with dockerd")
        pytest.skip("a second engine needs root and dockerd")
    kernel_image(docker_engine, "python:3.11-slim", [])
    made = next(tag for image in docker_engine.images("rlm-kernel") for tag in image["RepoTags"] if is_plain(tag))
    engine = SecondEngine()
    try:
        engine.start()
        engine.load("python:3.11-slim", made)
        yield engine
    finally:
        engine.close()


def is_plain(tag):
    """Whether it is the tag of the stock image with nothing but ipykernel."""
    client = provisioner.engine()
    return client.inspect_image(tag)["Id"] == kernel_image(client, "python:3.11-slim", [])


@pytest.mark.full
@pytest.mark.parametrize("options", [{}, {"packages": ["six"]}], ids=["a container", "an image"])
async def test_a_full_disk_is_named_and_nothing_is_left(docker_session, second_engine, elsewhere, options):
    elsewhere(second_engine.host)
    second_engine.fill()
    try:
        with pytest.raises(KernelError, match="disk is full: docker system prune"):
            await docker_session(**options)
    finally:
        second_engine.empty()
    assert provisioner.engine().containers(all=True) == []
    async with await docker_session() as session:
        assert (await session.run("1 + 1")).value == "2"


@pytest.mark.parametrize("transport", mostly_full(["ipc", "relay"], "relay"))
async def test_an_engine_restarted_in_a_cell_costs_that_cell(docker_session, second_engine, elsewhere, transport):
    elsewhere(second_engine.host)
    async with await docker_session(transport=transport) as session:
        running = asyncio.create_task(session.run("import time; time.sleep(100)"))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(second_engine.stop)
        cell = await asyncio.wait_for(running, 30)
        assert (cell.status, cell.kernel_alive) == ("died", False)
        coming_back = asyncio.create_task(session.restart())  # before the engine is there again
        await asyncio.sleep(0.5)
        await asyncio.to_thread(second_engine.start)
        await coming_back
        assert (await session.run("1 + 1")).value == "2"
    async with asyncio.timeout(20):
        while provisioner.engine().containers(all=True):
            await asyncio.sleep(0.1)
