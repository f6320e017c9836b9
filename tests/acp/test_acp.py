"""`rlm acp` at the other end of the SDK's own client, with real kernels."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys

import acp
import pytest
from acp import schema
from acp_client import editor
from loopback import Hangs, LoopbackProvider, Says

COMMAND = [sys.executable, "-m", "rlm_kernel.cli", "acp"]


def cell(code):
    return f"```repl\n{code}\n```"


@pytest.fixture
def started(provider, tmp_path):
    """Starts `rlm acp` with the provider on loopback."""
    env = {**os.environ, "OPENAI_API_KEY": "loopback-key", "XDG_STATE_HOME": str(tmp_path / "state")}
    (tmp_path / "work").mkdir()

    def start(*arguments, choose=None, **variables):
        options = ["--model", "loopback-model", "--base-url", provider.backend_kwargs["base_url"], *arguments]
        return editor(*options, command=COMMAND, env={**env, **variables}, cwd=tmp_path / "work", choose=choose)

    return start


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


async def test_a_prompt_streams_thoughts_cells_and_words(started, provider, work):
    provider.script = [
        "I look at the numbers first.\n" + cell("print(sum(range(10)))"),
        "FINAL(The sum of these numbers is 45, as expected.)",
    ]
    async with started() as client:
        session = await client.new(work)
        response = await client.ask(session, "What is the sum?")
        assert response.stop_reason == "end_turn"
        assert response.usage.output_tokens > 0
        assert client.said(session) == "The sum of these numbers is 45, as expected."
        assert client.kinds(session).count("agent_message_chunk") > 1
        assert "I look at the numbers first." in client.said(session, "agent_thought_chunk")
        assert "print" not in client.said(session, "agent_thought_chunk")
        (call,) = client.calls(session).values()
        assert call["kind"] == "execute"
        assert call["history"][:2] == ["pending", "in_progress"]
        assert call["status"] == "completed"
        assert call["raw_input"] == {"code": "print(sum(range(10)))"}
        assert "45" in call["text"]
