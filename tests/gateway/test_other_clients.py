"""The gateway with clients that are not of our SDK: the official inspector, and an SDK that calls `initialize`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from gateway.gateway_process import COMMAND, KEY, http_server, options
from gateway.other_clients import installed

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]
NODE = "mcp-inspector/venv/bin/node"
INSPECTOR = "mcp-inspector/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
OLD_PYTHON = "mcp-1.9/bin/python"


@pytest.fixture(params=["stdio", "http"])
def inspect(request, repository, tmp_path, monkeypatch):
    """Runs one method with the inspector, over a transport: its result."""
    monkeypatch.setenv("HOME", str(tmp_path))
    inspector = [installed(NODE), installed(INSPECTOR), "--cli"]

    def run(*given):
        command = [*inspector, *given]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    if request.param == "stdio":
        yield lambda *given: run(*given, "--", *COMMAND, *options(repository, tmp_path))
    else:
        with http_server(repository, tmp_path) as url:
            yield lambda *given: run(url, "--header", f"Authorization: Bearer {KEY}", *given)


def test_the_official_inspector_takes_tools_resources_and_prompts(inspect):
    tools = inspect("--method", "tools/list", "--strict")["tools"]  # strict: no schema that clients refuse
    assert len(tools) == 28
    assert all(tool["outputSchema"]["type"] == "object" for tool in tools)
    made = inspect("--method", "tools/call", "--tool-name", "rlm_session_create")
    assert made["structuredContent"] == json.loads(made["content"][0]["text"])
    assert "rlm://sessions" in [one["uri"] for one in inspect("--method", "resources/list")["resources"]]
    read = inspect("--method", "resources/read", "--uri", "rlm://sessions")
    assert isinstance(json.loads(read["contents"][0]["text"]), list)
    assert len(inspect("--method", "resources/templates/list")["resourceTemplates"]) == 1
    assert len(inspect("--method", "prompts/list")["prompts"]) == 3
    asked = ("--method", "prompts/get", "--prompt-name", "summarize", "--prompt-args", "subject=it")
    assert inspect(*asked)["messages"][0]["content"]["text"].startswith("Summarize it")


@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_a_client_of_the_sdk_before_begins_with_initialize_and_reads(repository, tmp_path, transport):
    python, script = installed(OLD_PYTHON), Path(__file__).with_name("old_client.py")

    def seen(*given):
        command = [python, str(script), transport, *given]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    if transport == "stdio":
        found = seen(*COMMAND, *options(repository, tmp_path))
    else:
        with http_server(repository, tmp_path) as url:
            found = seen(url, KEY)
    assert found == {
        "protocol": "2025-03-26",
        "tools": 28,
        "content": "line 2 of the session",
        "calls": 3,
        "prompt": "user",
    }
