"""Progress and cancellation of calls that take long, by the official client, over both transports and protocols."""

from __future__ import annotations

import asyncio
import json

import pytest
from gateway.gateway_process import call, stdio, web
from loopback import Hangs

LOOK = "```repl\nprint(list_files())\n```"
WAYS = [
    (stdio, "auto"),
    pytest.param(stdio, "legacy", marks=pytest.mark.full),
    (web, "auto"),
    (web, "legacy"),
]


def model(provider):
    return [
        "--backend",
        "openai",
        "--model",
        "loopback-model",
        "--base-url",
        provider.base_url,
        "--environment",
        "local",
    ]


def entries(tmp_path):
    (trail,) = (tmp_path / "data" / "trail").iterdir()
    return [json.loads(line) for line in trail.read_text().splitlines()]


async def outcomes(tmp_path, tool):
    """Waits for the end of two calls in the trail: the code of each, or None."""
    async with asyncio.timeout(60):
        while True:
            found = [entry.get("code") for entry in entries(tmp_path) if entry.get("tool") == tool]
            if len(found) > 1:
                return found
            await asyncio.sleep(0.05)


@pytest.fixture
def own_provider(provider, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "loopback-key")
    return provider


async def open_session(client):
    session = (await call(client, "rlm.session.create"))["session_id"]
    await call(client, "rlm.roots.set", session_id=session, roots=["."])
    return session


@pytest.mark.parametrize(("transport", "mode"), WAYS)
async def test_the_turns_of_a_run_are_told_and_a_cancelled_run_gives_up_its_model(
    own_provider, repository, tmp_path, transport, mode
):
    own_provider.script = [LOOK, LOOK, "FINAL(done)", Hangs()]
    told = []

    async def tell(progress, total, message):
        told.append((progress, total, message))

    async with transport(repository, tmp_path, mode, *model(own_provider)) as client:
        session = await open_session(client)
        given = {"session_id": session, "task": "Look.", "budgets": {"max_iterations": 5}}
        result = await client.call_tool("rlm.complete", given, progress_callback=tell)
        assert result.structured_content["answer"] == "done"
        assert told == [(float(n), 5.0, "the model takes a turn") for n in (1, 2, 3)]
        running = asyncio.create_task(client.call_tool("rlm.complete", given))
        await asyncio.to_thread(own_provider.wait_for_requests, 4)
        running.cancel()
        await asyncio.wait([running])
        await asyncio.to_thread(own_provider.wait_for_disconnects, 1)
        assert await outcomes(tmp_path, "rlm.complete") == [None, "CANCELLED"]
        assert "session_id" in await call(client, "rlm.session.create")


@pytest.mark.parametrize(("transport", "mode"), [(web, "auto"), pytest.param(web, "legacy", marks=pytest.mark.full)])
async def test_code_that_runs_is_told_and_a_cancelled_cell_ends(docker_engine, repository, tmp_path, transport, mode):
    told = asyncio.Queue()

    async def tell(progress, total, message):
        told.put_nowait(message)

    async with transport(repository, tmp_path, mode) as client:
        session = await open_session(client)
        await call(client, "rlm.exec.run", session_id=session, code="x = 1")
        given = {"session_id": session, "code": "while True: pass", "timeout_ms": 30_000}
        running = asyncio.create_task(client.call_tool("rlm.exec.run", given, progress_callback=tell))
        assert [await told.get() for _ in range(2)] == ["the code runs"] * 2
        running.cancel()
        await asyncio.wait([running])
        async with asyncio.timeout(20):  # well before its own limit
            lost = await call(client, "rlm.exec.run", session_id=session, code="x")
        assert "NameError" in lost["stderr"]
        assert [entry.get("code") for entry in entries(tmp_path) if entry.get("code")] == ["CANCELLED"]
