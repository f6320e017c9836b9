"""The gateway in the container of environments/gateway, with a client outside of it."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
from gateway.gateway_process import KEY, call, over_http, smoke

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "rlm-gateway-test"
CONFINED = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]


def docker(*given):
    done = subprocess.run(["docker", *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image(docker_engine):
    file = str(ROOT / "environments/gateway/Dockerfile")
    docker("build", "-f", file, "--build-arg", "PYTHON=python:3.11-slim", "-t", IMAGE, str(ROOT))
    yield IMAGE
    docker("image", "rm", "--force", IMAGE)


@pytest.fixture
def container(image, repository):
    """A running gateway: its id."""
    volume = f"{IMAGE}-{uuid4().hex}"
    mounts = ["-v", f"{repository}:/repository:ro", "-v", f"{volume}:/data"]
    made = docker("run", "-d", "-p", "127.0.0.1::8080", *CONFINED, *mounts, "-e", f"RLM_GATEWAY_API_KEY={KEY}", image)
    yield made
    docker("rm", "--force", made)
    docker("volume", "rm", volume)


async def healthy(home):
    async with asyncio.timeout(60), httpx2.AsyncClient() as http:
        while True:
            try:
                return (await http.get(f"{home}/health")).json()["status"]
            except httpx2.HTTPError:
                await asyncio.sleep(0.1)


async def test_a_client_outside_reads_a_repository_through_the_container(container):
    home = f"http://{docker('port', container, '8080').splitlines()[0]}"
    assert await healthy(home) == "ok"
    async with over_http(f"{home}/mcp") as client:
        session = await smoke(client)
        refused = await call(client, "rlm.exec.run", session_id=session, code="1")
    assert refused["error_code"] == "UNAVAILABLE"
    assert docker("exec", container, "id", "-u") == "1000"
    assert "valid: 5 calls" in docker("exec", container, "rlm", "gateway", "audit", "/data/trail")


def test_the_container_does_not_start_without_a_key(image, repository):
    command = ["docker", "run", "--rm", *CONFINED, "-v", f"{repository}:/repository:ro", image]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, "HTTP needs a key" in done.stderr) == (2, True)
