"""A gateway in a process of its own, and the official client for it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

KEY = "0123456789abcdef0123456789abcdef"
COMMAND = [sys.executable, "-m", "rlm_kernel.cli", "gateway"]


def options(repository, tmp_path, *more):
    return ["--repo-path", str(repository), "--data-dir", str(tmp_path / "data"), *more]


@contextlib.asynccontextmanager
async def stdio(repository, tmp_path, mode, *more):
    arguments = [*COMMAND[1:], *options(repository, tmp_path, *more)]
    server = StdioServerParameters(command=COMMAND[0], args=arguments, env=dict(os.environ))
    async with Client(server, mode=mode) as client:
        yield client


@contextlib.contextmanager
def http_server(repository, tmp_path, *more, key=KEY):
    """Its address. Of an option that is given twice the last one counts, so `more` may name another port."""
    command = [*COMMAND, "--mode", "http", "--port", "0", *options(repository, tmp_path, *more)]
    variables = dict(os.environ) | ({"RLM_GATEWAY_API_KEY": key} if key else {})
    process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate(timeout=20)


@contextlib.asynccontextmanager
async def over_http(url, mode="auto", key=KEY, *, auth=None, verify=True):
    headers = {"Authorization": f"Bearer {key}"} if auth is None else {}
    async with (
        httpx2.AsyncClient(headers=headers, auth=auth, timeout=100, verify=verify) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def web(repository, tmp_path, mode, *more):
    with http_server(repository, tmp_path, *more) as url:
        async with over_http(url, mode) as client:
            yield client


async def call(client, tool, **given):
    result = await client.call_tool(tool, given)
    assert json.loads(result.content[0].text) == result.structured_content
    assert result.is_error == ("error" in result.structured_content)
    return result.structured_content


async def smoke(client, name=str):
    """Session, roots, list, handle, span. `name`: from the dotted name of a tool to the one that is called."""
    session = (await call(client, name("rlm.session.create")))["session_id"]
    await call(client, name("rlm.roots.set"), session_id=session, roots=["src"])
    items = (await call(client, name("rlm.fs.list"), session_id=session, root="src"))["items"]
    assert "src/session.py" in [item["path"] for item in items]
    made = await call(client, name("rlm.fs.handle.create"), session_id=session, file_path="src/session.py")
    lines = {"file_handle": made["file_handle"], "start_line": 2, "end_line": 3}
    span = await call(client, name("rlm.span.read"), session_id=session, **lines)
    assert span["content"] == "line 2 of the session\nline 3 of the session"
    return session
