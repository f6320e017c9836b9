"""`exec.run` in a container, and `rlm.complete` over the bounded tools."""

from __future__ import annotations

import asyncio

import pytest
from gateway.session_client import Client

from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.errors import KernelError
from rlm_kernel.gateway import kernels
from rlm_kernel.gateway.gateway import Gateway
from rlm_kernel.gateway.models import Models

READ = """```repl
found = search_files("session line")
text = read_lines(found[0]["file_handle"], 7, 8)
print(text)
FINAL(text)
```"""


@pytest.fixture
def answering(repository, tmp_path):
    """Makes a gateway whose model gives these replies."""
    made = []

    def make(*replies):
        gateway = Gateway(repository, tmp_path / "data", Models(ScriptedLM(replies), environment="local"))
        made.append(gateway)
        return gateway

    yield make
    for gateway in made:
        gateway.trail.close()


async def test_code_runs_without_a_network_and_keeps_its_variables(docker_engine, client, repository):
    code = f"import os\nx = 41\nos.path.exists({str(repository)!r})"
    first = await client.ok("rlm.exec.run", code=code)
    assert (first["success"], first["stdout"]) == (True, "False")
    again = await client.ok("rlm.exec.run", code="print(x + 1)")
    assert again["stdout"] == "42\n"
    code = "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=3)"
    offline = await client.ok("rlm.exec.run", code=code)
    assert (offline["success"], "OSError" in offline["stderr"]) == (False, True)
    said = await client.refused("rlm.exec.run", code="while True: pass", timeout_ms=500)
    assert said == "Execution timeout: exceeded 500ms (R3 compliance)"
    said = await client.refused("rlm.exec.run", code="x = bytearray(10**9)\nx[::4096] = b'1' * len(x[::4096])")
    assert said.startswith("The kernel died: it may use 256 MB")
    report = await client.ok("rlm.provenance.report")
    assert [span["source_type"] for span in report["provenance_graph"]["spans"]] == ["execution"] * 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"code": "x" * 10_241}, "Code too large: 10241 > 10240 bytes"),
        ({"code": "1", "timeout_ms": 30_001}, "Timeout too large: 30001ms > 30000ms"),
    ],
)
async def test_code_beyond_the_limits_is_refused(client, given, words):
    assert await client.refused("rlm.exec.run", **given) == words


async def test_code_is_refused_with_the_reason_where_there_is_no_engine(client, monkeypatch):
    async def fail(*_):
        raise KernelError("no engine at /var/run/docker.sock")

    monkeypatch.setattr(kernels.Kernel, "open", fail)
    said = await client.refused("rlm.exec.run", code="1")
    assert said == kernels.NO_ENGINE


async def test_a_task_is_answered_with_citations_of_what_was_read(answering):
    gateway = answering(READ)
    client = await Client(gateway).begin("src")
    done = await client.ok("rlm.complete", task="What is in line 7?")
    assert "line 7 of the session" in done["answer"]
    (citation,) = done["structured_answer"]["citations"]
    assert (citation["start_line"], citation["end_line"], done["structured_answer"]["confidence"]) == (7, 8, 1.0)
    lines = {"file_handle": citation["file_handle"], "start_line": 7, "end_line": 8}
    assert (await client.ok("rlm.span.read", **lines))["hash"] == citation["content_hash"]
    graph = (await client.ok("rlm.provenance.report"))["provenance_graph"]
    assert [output["tool"] for output in graph["outputs"]][1:4] == ["rlm.fs.list", "rlm.search.query", "rlm.span.read"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"budgets": {"max_tool_calls": 2}}, "Tool call budget exceeded: 2 >= 2"),
        ({"constraints": {"max_span_size": 1}}, "Max span size too large: 2 > 1"),
        ({"constraints": {"allowed_roots": ["environments"]}}, "IndexError"),
    ],
)
async def test_the_model_is_held_to_the_budgets_of_the_call(answering, given, words):
    model = ScriptedLM([READ, "FINAL(it was refused)"])
    gateway = answering()
    object.__setattr__(gateway.services.models, "backend", model)
    client = await Client(gateway).begin(".")
    done = await client.ok("rlm.complete", task="What is in line 7?", **given)
    assert "it was refused" in done["answer"]
    assert words in str(model.calls[-1])
    assert done["structured_answer"] == {"summary": done["answer"], "citations": [], "confidence": None}


async def test_a_run_that_fails_is_told_as_a_failure(answering):
    client = await Client(answering(RuntimeError("the provider said no, see /srv/provider/key.json"))).begin(".")
    said = await client("rlm.complete", task="?")
    assert (said["success"], said["error_code"]) == (False, "EXECUTION_ERROR")
    assert "/srv" not in str(said)


async def test_progress_is_notified_and_a_cancellation_ends_the_run(answering):
    heard = asyncio.Event()

    async def progress(*_):
        heard.set()

    gateway = answering("```repl\nimport time; time.sleep(60)\n```")
    client = await Client(gateway).begin(".")
    given = {"session_id": client.session, "task": "?"}
    running = asyncio.create_task(gateway.call("rlm.complete", given, client.caller, progress))
    await heard.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_without_a_model_a_task_is_refused_with_the_reason(client):
    assert "Start it with --backend and --model" in await client.refused("rlm.complete", task="?")
