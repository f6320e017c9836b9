"""`rlm acp` at the other end of the SDK's own client, with real kernels."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import acp
import pytest
from acp import schema
from acp_client import editor
from loopback import Hangs
from selection import mostly_full

COMMAND = [sys.executable, "-m", "rlm_kernel.cli", "acp"]
OLD_PYTHON = Path(__file__).resolve().parents[2] / ".cache/acp-0.11/bin/python"
SERVER = Path(__file__).with_name("notes_server.py")


def cell(code):
    return f"```repl\n{code}\n```"


@pytest.fixture
def started(provider, tmp_path):
    """Starts `rlm acp` with the provider on loopback."""
    env = {**os.environ, "OPENAI_API_KEY": "loopback-key", "XDG_STATE_HOME": str(tmp_path / "state")}
    (tmp_path / "work").mkdir()

    def start(*arguments, choose=None, **variables):
        options = ["--model", "loopback-model", "--base-url", provider.backend_kwargs["base_url"], *arguments]
        given = {name: value for name, value in {**env, **variables}.items() if value is not None}
        return editor(*options, command=COMMAND, env=given, cwd=tmp_path / "work", choose=choose)

    return start


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


@pytest.fixture
def work_of_old_client(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    return work, {**os.environ, "OPENAI_API_KEY": "loopback-key", "XDG_STATE_HOME": str(tmp_path / "state")}


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


async def test_the_client_learns_what_we_can_do(started):
    async with started("--also-model", "other-model") as client:
        hello = client.hello
        assert hello.protocol_version == acp.PROTOCOL_VERSION
        able = hello.agent_capabilities
        assert able.load_session
        assert able.prompt_capabilities.image
        assert able.prompt_capabilities.embedded_context
        assert able.mcp_capabilities.http
        assert able.session_capabilities.list is not None
        assert [method.id for method in hello.auth_methods] == ["environment"]


async def test_a_missing_key_is_an_error_that_says_how_to_set_it(started, work):
    async with started(OPENAI_API_KEY=None) as client:
        with pytest.raises(acp.RequestError, match="set OPENAI_API_KEY") as caught:
            await client.new(work)
        assert caught.value.code == -32000
        with pytest.raises(acp.RequestError, match="set OPENAI_API_KEY"):
            await client.agent.authenticate(method_id="environment")
        (work / ".env").write_text("OPENAI_API_KEY=loopback-key\n")
        await client.agent.authenticate(method_id="environment")
        assert await client.new(work)


@pytest.mark.full
async def test_links_embedded_texts_unsaved_buffers_and_pictures_are_data_of_the_message(started, provider, work):
    (work / "saved.txt").write_text("saved words")
    (work / "open.txt").write_text("the old words")
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()
    code = "print(context['saved.txt'], '|', context['open.txt'], '|', context['note.md'], '|', sorted(context))"
    provider.script = [cell(code), "FINAL(done)"]
    async with started() as client:
        session = await client.new(work)
        client.opened[str(work / "open.txt")] = "unsaved words"
        await client.ask(
            session,
            "Compare these:",
            acp.resource_link_block("saved.txt", (work / "saved.txt").as_uri()),
            acp.resource_link_block("open.txt", (work / "open.txt").as_uri()),
            acp.resource_block(acp.embedded_text_resource("zed:///note.md", "a note")),
            acp.image_block(picture, "image/png"),
        )
        (call,) = client.calls(session).values()
        assert "saved words | unsaved words | a note | ['note.md', 'open.txt', 'picture', 'saved.txt']" in call["text"]
        assert "saved.txt (context['saved.txt'])" in provider.requests[0].said


async def test_the_model_reads_the_folder_with_functions_and_secrets_stay_where_they_are(started, provider, work):
    (work / "src").mkdir()
    (work / "src" / "a.py").write_text("x = 1\nneedle = 2\n")
    (work / ".env").write_text("SECRET=1")
    (work / ".gitignore").write_text("ignored.txt\n")
    (work / "ignored.txt").write_text("needle")
    code = "print(list_files(), search_files('need.e'), read_file('src/a.py', 2, 2))\nread_file('.env')"
    provider.script = [cell(code), "FINAL(done)"]
    async with started() as client:
        session = await client.new(work)
        await client.ask(session, "What is there?")
        calls = client.calls(session)
        (ran,) = [call for call in calls.values() if call["kind"] == "execute"]
        assert "['.gitignore', 'src/', 'src/a.py'] ['src/a.py:2: needle = 2'] needle = 2" in ran["text"]
        assert ran["status"] == "failed"
        assert "Access denied" in ran["text"]
        tools = [(call["title"].partition("(")[0], call["kind"], call["status"]) for call in calls.values()]
        assert ("list_files", "search", "completed") in tools
        assert ("read_file", "read", "failed") in tools


@pytest.mark.parametrize("where", mostly_full(["cell", "stubborn cell", "sub-call"], "stubborn cell"))
async def test_cancel_ends_the_turn_and_the_session_goes_on(started, provider, work, where):
    stubborn = "while True:\n    try:\n        time.sleep(600)\n    except KeyboardInterrupt:\n        pass"
    codes = {"cell": "time.sleep(600)", "stubborn cell": stubborn, "sub-call": "llm_query('How long?')"}
    code = f"import time\n{codes[where]}"
    provider.script = [cell("x = 42"), cell(code), *([Hangs()] if where == "sub-call" else []), "FINAL_VAR(x)"]
    async with started() as client:
        session = await client.new(work)
        turn = asyncio.create_task(client.ask(session, "Wait."))
        shown = "llm_query" if where == "sub-call" else "sleep"
        await client.wait_for(
            session,
            lambda: any(shown in c["text"] and c["status"] == "in_progress" for c in client.calls(session).values()),
        )
        if where == "sub-call":
            await asyncio.to_thread(provider.wait_for_requests, 3)
        await client.agent.cancel(session_id=session)
        async with asyncio.timeout(10):
            assert (await turn).stop_reason == "cancelled"
        assert {call["status"] for call in client.calls(session).values()} == {"completed", "failed"}
        assert (await client.ask(session, "What is x?")).stop_reason == "end_turn"
        assert client.said(session).endswith("42")


async def test_load_after_kill_9_tells_the_conversation_and_goes_on(started, provider, work):
    provider.script = ["First a cell.\n" + cell("x = 41"), "FINAL(Kept.)", cell("x += 1\nllm_query('?')"), Hangs()]
    async with started() as client:
        session = await client.new(work)
        await client.ask(session, "Keep 41 in x.")
        turn = asyncio.create_task(client.ask(session, "Add one."))
        await asyncio.to_thread(provider.wait_for_requests, 4)
        client.process.send_signal(signal.SIGKILL)
        await client.process.wait()
        turn.cancel()
    provider.script = ["an answer", "FINAL_VAR(x)"]
    async with started() as client:
        listed = (await client.agent.list_sessions(cwd=str(work))).sessions
        assert [(one.session_id, one.title) for one in listed] == [(session, "Keep 41 in x.")]
        await client.agent.load_session(cwd=str(work), session_id=session, mcp_servers=[])
        assert client.said(session, "user_message_chunk") == "Keep 41 in x.Add one."
        assert "First a cell." in client.said(session, "agent_thought_chunk")
        assert client.said(session).startswith("Kept.(This message has no answer yet")
        assert [call["status"] for call in client.calls(session).values()] == ["completed", "failed"]
        await client.ask(session, "Add one.")
        assert client.said(session).endswith("42")
        assert (await client.agent.resume_session(session_id=session, cwd=str(work), mcp_servers=[])) is not None


async def test_each_cell_is_asked_about_in_the_mode_ask(started, provider, work):
    said = iter(["allow_once", "reject_once", "allow_always"])
    provider.script = [cell("x = 1"), cell("x = 2"), cell("x += 3"), cell("x += 10"), "FINAL_VAR(x)"]
    async with started(choose=lambda _: next(said)) as client:
        session = await client.new(work)
        await client.agent.set_session_mode(session_id=session, mode_id="ask")
        await client.ask(session, "Go.")
        assert client.said(session) == "14"
        assert [call.raw_input["code"] for call in client.asked] == ["x = 1", "x = 2", "x += 3"]
        assert [call["status"] for call in client.calls(session).values()] == [
            "completed",
            "failed",
            "completed",
            "completed",
        ]


@pytest.mark.full
async def test_cancel_while_the_client_is_asked(started, provider, work):
    asked, never = asyncio.Event(), asyncio.Event()

    async def choose(_):
        asked.set()
        await never.wait()

    provider.script = [cell("x = 1"), "FINAL(ok)"]
    async with started(choose=choose) as client:
        session = await client.new(work)
        await client.agent.set_session_mode(session_id=session, mode_id="ask")
        turn = asyncio.create_task(client.ask(session, "Go."))
        await asked.wait()
        await client.agent.cancel(session_id=session)
        assert (await turn).stop_reason == "cancelled"
        assert (await client.ask(session, "Say ok.")).stop_reason == "end_turn"
        never.set()


@pytest.mark.full
async def test_several_sessions_at_once_and_more_than_may_live(started, provider, work):
    def script(request):
        name = next(name for name in "abc" if f"I am {name}" in request.said)
        return "FINAL_VAR(me)" if "me = " in request.said else cell(f"me = 'this is {name}'")

    provider.script = script
    async with started("--max-sessions", "2") as client:
        sessions = [await client.new(work) for _ in "abc"]
        await asyncio.gather(*(client.ask(one, f"I am {name}") for one, name in zip(sessions, "abc", strict=True)))
        assert [client.said(one) for one in sessions] == ["this is a", "this is b", "this is c"]
        await client.agent.close_session(session_id=sessions[0])
        with pytest.raises(acp.RequestError, match="no such session"):
            await client.ask(sessions[0], "Still there?")


@pytest.mark.full
async def test_another_model_is_taken_from_the_next_prompt_on(started, provider, work):
    provider.script = [cell("x = 5"), "FINAL(ok)", "FINAL_VAR(x)"]
    async with started("--also-model", "other-model") as client:
        session = (await client.agent.new_session(cwd=str(work), mcp_servers=[])).session_id
        await client.ask(session, "Keep five.")
        changed = await client.agent.set_config_option(config_id="model", session_id=session, value="other-model")
        assert changed.config_options[0].current_value == "other-model"
        await client.ask(session, "What is x?")
        assert client.said(session) == "ok5"
        assert [request.body["model"] for request in provider.requests] == ["loopback-model"] * 2 + ["other-model"]
        with pytest.raises(acp.RequestError, match="no model"):
            await client.agent.set_config_option(config_id="model", session_id=session, value="gpt-9")


@pytest.mark.full
async def test_the_notebook_is_written_beside_the_one_that_is_mentioned(started, provider, work):
    (work / "data").mkdir()
    (work / "data" / "analysis.ipynb").write_text(
        json.dumps(
            {
                "cells": [{"cell_type": "markdown", "metadata": {}, "source": "# Sales", "id": "a"}],
                "metadata": {},
                "nbformat": 4,
                "nbformat_minor": 5,
            }
        )
    )
    link = acp.resource_link_block("analysis.ipynb", (work / "data" / "analysis.ipynb").as_uri())
    provider.script = [cell("print(context['data/analysis.ipynb'])"), "FINAL(It is about sales.)"]
    async with started() as client:
        session = await client.new(work)
        await client.ask(session, "What is it about? ", link)
        assert "# Sales" in next(iter(client.calls(session).values()))["text"]
        await client.ask(session, "/notebook ", link)
        written = json.loads((work / "data" / "analysis-rlm.ipynb").read_text())
        assert "It is about sales." in json.dumps(written)
        (work / "mine.ipynb").write_text("{}")
        with pytest.raises(acp.RequestError, match="there already"):
            await client.ask(session, "/notebook mine.ipynb")
        with pytest.raises(acp.RequestError):
            await client.ask(session, "/notebook ../out.ipynb")


def request(method, **params):
    return json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).encode() + b"\n"


HOSTILE = [
    (b"{nope\n", -32700),
    (b"[1, 2]\n", -32600),
    (b'{"jsonrpc": "2.0", "id": [1], "method": "initialize"}\n', -32600),
    (b'{"jsonrpc": "2.0", "id": [1], "result": 1}\n', -32600),
    (b'{"jsonrpc": "2.0", "id": 1, "error": "no"}\n', -32600),
    (b"[" * 100_000 + b"\n", -32700),
    (b'{"id": 1, "method": "\xff"}\n', -32700),
    (request("session/explode"), -32601),
    (request("session/new", cwd=5), -32602),
    (request("session/new", cwd="here", mcpServers=[]), -32602),
    (request("session/prompt", sessionId="../..", prompt=[]), -32602),
    (request("session/load", sessionId="../..", cwd="/", mcpServers=[]), -32602),
]


def test_what_is_no_message_gets_an_error_and_the_next_one_its_answer(started, tmp_path, provider):
    hello = b'{"jsonrpc": "2.0", "id": 99, "method": "initialize", "params": {"protocolVersion": 1}}\n'
    sent = b"".join(line for line, _ in HOSTILE) + b"x" * 70_000_000 + b"\n" + hello
    env = {**os.environ, "OPENAI_API_KEY": "key"}
    options = ["--model", "m", "--base-url", provider.backend_kwargs["base_url"], "--log-dir", str(tmp_path / "logs")]
    done = subprocess.run([*COMMAND, *options], check=False, input=sent, capture_output=True, env=env, timeout=100)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    codes = [answer["error"]["code"] for answer in answers if "error" in answer]
    assert sorted(codes) == sorted([*(code for _, code in HOSTILE), -32600])
    assert [answer["result"]["protocolVersion"] for answer in answers if answer.get("id") == 99] == [1]
    assert done.returncode == 0


async def test_what_is_outside_of_the_folder_or_too_much_is_an_error(started, provider, work, tmp_path):
    (tmp_path / "other.txt").write_text("secret")
    async with started() as client:
        session = await client.new(work)
        for block in (
            acp.resource_link_block("other.txt", (tmp_path / "other.txt").as_uri()),
            acp.resource_link_block("page", "https://example.org/"),
            acp.resource_block(acp.embedded_text_resource("x:///big", "x" * 16_000_000)),
            acp.image_block("bm8=", "image/png"),
            acp.audio_block("bm8=", "audio/wav"),
        ):
            with pytest.raises(acp.RequestError, match="cannot be read") as caught:
                await client.ask(session, "Look: ", block)
            assert caught.value.code == -32602
        with pytest.raises(acp.RequestError, match="no text"):
            await client.ask(session, "  ")
        sse = schema.SseMcpServer(name="x", url="http://localhost/sse", headers=[], type="sse")
        with pytest.raises(acp.RequestError, match="stdio or HTTP"):
            await client.new(work, mcp_servers=[sse])
        assert provider.requests == []


async def test_kernels_end_when_the_client_vanishes_and_only_the_protocol_is_on_stdout(started, provider, work):
    provider.script = [
        cell("import os\nprint(os.getpid())\nos.system('echo on the terminal')"),
        cell("import time; time.sleep(600)"),
    ]
    async with started() as client:
        session = await client.new(work)
        turn = asyncio.create_task(client.ask(session, "Go."))
        await client.wait_for(session, lambda: len(client.calls(session)) == 2)
        first = next(iter(client.calls(session).values()))
        pid = int(next(word for word in first["text"].split() if word.isdigit()))
        os.kill(pid, 0)
        client.process.stdin.close()
        async with asyncio.timeout(20):
            assert await client.process.wait() == 0
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        turn.cancel()


@pytest.mark.full
@pytest.mark.skipif(not OLD_PYTHON.exists(), reason=".ci/full installs the older SDK into .cache/acp-0.11")
def test_a_client_of_the_older_sdk(provider, work_of_old_client):
    provider.script = [cell("print(6 * 7)"), "FINAL(42)", cell("import time; time.sleep(600)")]
    folder, env = work_of_old_client
    options = ["--model", "loopback-model", "--base-url", provider.backend_kwargs["base_url"]]
    script = str(Path(__file__).with_name("old_client.py"))
    done = subprocess.run(
        [OLD_PYTHON, script, folder, *COMMAND, *options],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=90,
    )
    seen = json.loads(done.stdout)
    assert seen["version"].startswith("0.11.")
    assert seen["reasons"] == ["end_turn", "cancelled"]
    assert seen["told"].startswith("42")
    assert seen["sessions"] == ["How many?"]
    assert seen["asked"] == 2


async def test_the_servers_that_a_client_names_are_tools_and_what_changes_something_is_asked_about(
    started, provider, work
):
    said = iter(["allow_once", "reject_once"])
    code = "print(notes.add(text='one'))\nnotes.add(text='two')"
    provider.script = [cell(code), "FINAL(done)"]
    server = schema.McpServerStdio(name="notes", command=sys.executable, args=[str(SERVER)], env=[])
    async with started(choose=lambda _: next(said)) as client:
        session = await client.new(work, mcp_servers=[server])
        await client.ask(session, "Note one and two.")
        calls = [call for call in client.calls(session).values() if call["kind"] == "other"]
        assert [call["status"] for call in calls] == ["completed", "failed"]
        assert [call["history"][0] for call in calls] == ["pending", "pending"]
        assert "one" in calls[0]["text"]
        assert [call["title"] for call in calls] == ["notes.add(text='one')", "notes.add(text='two')"]
        assert client.said(session) == "done"
        assert (work / "notes.txt").read_text() == "one\n"
