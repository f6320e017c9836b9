"""`exec.run` in a container, and `rlm.complete` over the bounded tools."""

from __future__ import annotations

import asyncio

import psutil
import pytest
from gateway.session_client import Client

from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.errors import KernelError
from rlm_kernel.gateway import kernels, limits
from rlm_kernel.gateway.gateway import Gateway
from rlm_kernel.gateway.models import Models
from rlm_kernel.provisioners import cgroups
from rlm_kernel.provisioners.sandbox import walls

MEMORY_BOMBS = [
    "x = bytearray(10**9)\nx[::4096] = b'1' * len(x[::4096])\nprint('all of it')",
    "import mmap\nx = mmap.mmap(-1, 10**9)\nfor n in range(0, 10**9, 4096): x[n] = 1\nprint('all of it')",
    "file = open('/dev/shm/x', 'wb')\nfor _ in range(600): file.write(b'1' * 2**20)\nprint('all of it')",
]

FORK_BOMB = "import os, time\nwhile True:\n  try: os.fork()\n  except OSError: time.sleep(1)"
FLOOD = "import sys\nfor _ in range(40): print('x' * 10**5); print('y' * 10**5, file=sys.stderr)"

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


@pytest.fixture(params=["docker_engine", "bwrap"])
def place(request, monkeypatch):
    """Where code runs: in a container, or in bubblewrap where no engine answers."""
    request.getfixturevalue(request.param)
    if request.param == "bwrap":
        if not cgroups.limit_memory():
            pytest.skip("needs control groups")
        monkeypatch.setattr(kernels, "in_container", no_engine)
    return request.param


def no_engine(_):
    raise KernelError("no engine at /var/run/docker.sock")


async def test_code_runs_without_a_network_and_keeps_its_variables(place, client, repository):
    code = f"import os\nx = 41\nos.path.exists({str(repository)!r})"
    first = await client.ok("rlm.exec.run", code=code)
    assert (first["success"], first["stdout"]) == (True, "False")
    again = await client.ok("rlm.exec.run", code="print(x + 1)")
    assert again["stdout"] == "42\n"
    for kind in ("STREAM", "DGRAM"):
        code = f"import socket\nsocket.socket(type=socket.SOCK_{kind}).connect(('192.0.2.1', 80))"
        offline = await client.ok("rlm.exec.run", code=code)
        assert (offline["success"], "OSError" in offline["stderr"]) == (False, True)
    report = await client.ok("rlm.provenance.report")
    assert [span["source_type"] for span in report["provenance_graph"]["spans"]] == ["execution"] * 4


@pytest.mark.timeout(120)
async def test_time_memory_processes_and_output_are_bounded(place, client):
    said = await client.refused("rlm.exec.run", code="while True: pass", timeout_ms=500)
    assert said == "Execution timeout: exceeded 500ms (R3 compliance)"
    for bomb in MEMORY_BOMBS:
        done = await client("rlm.exec.run", code=bomb)
        assert done["success"] is False
        assert "256 MB" in done.get("error", "256 MB")
        assert "all of it" not in str(done)
    before = len(psutil.Process().children(recursive=True))
    assert (await client("rlm.exec.run", code=FORK_BOMB, timeout_ms=300))["success"] is False
    assert len(psutil.Process().children(recursive=True)) < before + 10
    flood = await client.ok("rlm.exec.run", code=FLOOD, timeout_ms=30_000)
    assert len((flood["stdout"] + flood["stderr"]).encode()) <= limits.MAX_EXEC_OUTPUT_BYTES


async def test_a_kernel_ends_with_the_time_of_its_session(bwrap, gateway, monkeypatch):
    monkeypatch.setattr(kernels, "in_container", no_engine)
    monkeypatch.setattr(cgroups, "limit_memory", lambda: True)
    client = await Client(gateway).begin(timeout_ms=3000)
    await client.ok("rlm.exec.run", code="1")
    (place,) = gateway.services.kernels._places.values()
    while gateway.services.kernels._places:
        await asyncio.sleep(0.02)
    while place.kernel.alive:
        await asyncio.sleep(0.02)


async def test_a_session_that_is_closed_while_its_kernel_starts_leaves_none(bwrap, client, gateway, monkeypatch):
    monkeypatch.setattr(kernels, "in_container", no_engine)
    monkeypatch.setattr(cgroups, "limit_memory", lambda: True)
    running = asyncio.create_task(client("rlm.exec.run", code="1"))
    while not gateway.services.kernels._places:
        await asyncio.sleep(0)
    (place,) = gateway.services.kernels._places.values()
    await client.ok("rlm.session.close")
    assert (await running)["error"] == "Session not found"
    assert not place.kernel.alive


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"code": "x" * 10_241}, "Code too large: 10241 > 10240 bytes"),
        ({"code": "1", "timeout_ms": 30_001}, "Timeout too large: 30001ms > 30000ms"),
    ],
)
async def test_code_beyond_the_limits_is_refused(client, given, words):
    assert await client.refused("rlm.exec.run", **given) == words


async def test_code_is_refused_with_the_reason_where_neither_engine_nor_sandbox_is(client, monkeypatch):
    monkeypatch.setattr(kernels, "in_container", no_engine)
    monkeypatch.setattr(cgroups, "limit_memory", lambda: False)
    monkeypatch.setattr(walls, "trouble", lambda _: "")
    assert await client.refused("rlm.exec.run", code="1") == kernels.UNAVAILABLE + kernels.NO_MEMORY_LIMIT
    monkeypatch.setattr(walls, "trouble", lambda _: "bubblewrap is not installed")
    assert await client.refused("rlm.exec.run", code="1") == kernels.UNAVAILABLE + "bubblewrap is not installed"


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
    read = [output["tool"] for output in graph["outputs"] if output["reader"] == "model"]
    assert read == ["rlm.fs.list", "rlm.search.query", "rlm.span.read"]


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


async def test_kernels_that_start_at_the_same_time_count(bwrap, gateway, monkeypatch):
    monkeypatch.setattr(kernels, "in_container", no_engine)
    monkeypatch.setattr(cgroups, "limit_memory", lambda: True)
    monkeypatch.setattr(kernels, "MAX_KERNELS", 1)
    clients = [await Client(gateway).begin() for _ in range(3)]
    done = await asyncio.gather(*(client("rlm.exec.run", code="1") for client in clients))
    assert sorted(result["success"] for result in done) == [False, False, True]
    assert "Too many sessions run code: 1 >= 1" in str(done)


async def test_runs_at_the_same_time_are_bounded(answering, monkeypatch):
    monkeypatch.setattr(limits, "MAX_RUNS", 1)
    heard = asyncio.Event()

    async def progress(*_):
        heard.set()

    gateway = answering("```repl\nimport time; time.sleep(60)\n```", "FINAL(done)")
    client = await Client(gateway).begin(".")
    given = {"session_id": client.session, "task": "?"}
    running = asyncio.create_task(gateway.call("rlm.complete", given, client.caller, progress))
    await heard.wait()
    assert "Too many runs of rlm.complete: 1 >= 1" in await client.refused("rlm.complete", task="?")
    running.cancel()
    await asyncio.wait([running])
    assert "Too many runs" not in str(await client("rlm.complete", task="?"))


async def test_an_answer_with_a_lone_surrogate_is_an_answer(answering):
    client = await Client(answering("```repl\nprint(len(context))\nFINAL(chr(0xD800) + ' done')\n```")).begin(".")
    assert (await client.ok("rlm.complete", task="?"))["answer"] == "? done"


async def test_code_does_not_run_in_a_sandbox_that_shows_the_repository(bwrap, client, repository, monkeypatch):
    monkeypatch.setattr(kernels, "in_container", no_engine)
    monkeypatch.setattr(cgroups, "limit_memory", lambda: True)
    monkeypatch.setattr(walls, "_SYSTEM", (*walls._SYSTEM, str(repository)))  # as if it were in /opt
    code = f"print(open({str(repository / 'README.md')!r}).read())"
    assert "A repository about kernels" not in str(said := await client("rlm.exec.run", code=code))
    assert said["error"] == kernels.UNAVAILABLE + kernels.SHOWN
