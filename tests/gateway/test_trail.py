"""The trail on disk, and the report: every byte that left is in them."""

from __future__ import annotations

import asyncio
import json
import resource
import threading

import pytest
from gateway.session_client import OWNER

from rlm_kernel.cli import main
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.gateway import kernels
from rlm_kernel.gateway.gateway import Gateway
from rlm_kernel.gateway.models import Models
from rlm_kernel.gateway.tools import TOOLS
from rlm_kernel.gateway.trail import audit
from rlm_kernel.gateway.tree import digest
from rlm_kernel.provisioners.kernelspecs import environment


async def read_something(client):
    handle = await client.handle("src/session.py")
    return [
        await client.ok("rlm.fs.list", root="."),
        await client.ok("rlm.span.read", file_handle=handle, start_line=1, end_line=20),
        await client.ok("rlm.search.query", query="kernels", scope="."),
        await client.ok("rlm.search.regex", pattern="line 4[0-9] ", scope="."),
    ]


def size(result):
    return len(json.dumps(result, ensure_ascii=False).encode())


async def test_every_byte_that_left_is_in_the_report_and_in_the_trail(client, gateway):
    results = await read_something(client)
    report = (await client.ok("rlm.provenance.report", export_json=True))["provenance_graph"]
    sizes = [output["bytes"] for output in report["outputs"]]
    assert sizes[-len(results) :] == list(map(size, results))
    assert sum(sizes[1:]) == report["output_bytes"]  # the first is of `session.create`
    assert len(report["spans"]) == 1 + 2 + 10
    trail = [json.loads(line) for line in gateway.trail.path.read_bytes().splitlines()]
    sealed = [line["bytes"] for line in trail if line["kind"] == "call"]
    assert sealed[-1 - len(results) : -1] == list(map(size, results))
    found = audit(gateway.trail.path)
    assert (found.flaw, found.is_cut) == (None, False)
    assert found.spans == 13


async def test_the_report_names_handles_and_the_trail_names_paths(client, gateway):
    await read_something(client)
    assert "session.py" not in str(await client.ok("rlm.provenance.report", export_json=True))
    assert b"src/session.py" in gateway.trail.path.read_bytes()
    assert gateway.trail.path.stat().st_mode & 0o077 == 0


async def test_an_audit_counts_calls_and_refusals(client, gateway, capsys):
    await client.refused("rlm.fs.list", root="../x")
    assert (audit(gateway.trail.path).calls, audit(gateway.trail.path).refused) == (2, 1)
    assert main(["gateway", "audit", str(gateway.trail.path)]) == 0
    assert "valid: 2 calls, 1 refused, " in capsys.readouterr().out


@pytest.mark.parametrize("change", ["alter", "remove", "add", "swap"])
async def test_a_trail_that_was_changed_does_not_verify(client, gateway, change):
    await read_something(client)
    lines = gateway.trail.path.read_bytes().splitlines(keepends=True)
    if change == "alter":
        lines[3] = lines[3].replace(b'"bytes": ', b'"bytes": 1')
    elif change == "remove":
        del lines[3]
    elif change == "add":
        lines.insert(3, lines[3])
    else:
        lines[3], lines[4] = lines[4], lines[3]
    gateway.trail.path.write_bytes(b"".join(lines))
    assert f"line {5 if change == 'add' else 4} " in audit(gateway.trail.path).flaw


async def test_a_trail_whose_last_line_is_cut_verifies_up_to_it(client, gateway):
    await read_something(client)
    whole = gateway.trail.path.read_bytes()
    gateway.trail.path.write_bytes(whole[:-40])
    found = audit(gateway.trail.path)
    assert (found.flaw, found.is_cut) == (None, True)


async def test_a_result_does_not_leave_if_the_trail_cannot_be_written(client, gateway, monkeypatch):
    def fail(_):
        raise OSError("no space")

    handle = await client.handle("README.md")
    monkeypatch.setattr(gateway.trail, "write", fail)
    with pytest.raises(OSError, match="no space"):
        await client("rlm.span.read", file_handle=handle, start_line=1, end_line=1)


READ = """```repl
print(read_lines(search_files("session line")[0]["file_handle"], 7, 8))
FINAL("done")
```"""


async def test_the_bytes_of_a_session_that_used_all_tools_add_up(bwrap, repository, tmp_path, monkeypatch):
    """What the caller got is what the report and the trail count, and what the model read is counted beside it."""
    monkeypatch.setattr(kernels, "in_container", lambda _: environment("local", {"sandbox": "bwrap"}))
    gateway = Gateway(repository, tmp_path / "data", Models(ScriptedLM([READ]), environment="local"))
    received = {}

    async def call(tool, **given):
        result = await gateway.call(tool, given, OWNER)
        received.setdefault(tool, []).append(size(result))
        return result

    session = {"session_id": (await call("rlm.session.create"))["session_id"]}
    await call("rlm.roots.set", **session, roots=["."])
    await call("rlm.fs.list", **session, root=".")
    await call("rlm.fs.manifest", **session, root=".")
    handle = {"file_handle": (await call("rlm.fs.handle.create", **session, file_path="wide.txt"))["file_handle"]}
    await call("rlm.span.read", **session, **handle, start_line=1, end_line=1)
    await call("rlm.span.read", **session, **handle, start_line=1, end_line=201)
    chunks = await call("rlm.chunk.create", **session, **handle)
    await call("rlm.chunk.get", **session, chunk_id=chunks["chunk_ids"][0])
    await call("rlm.chunk.get", **session)
    await call("rlm.search.query", **session, query="kernel", scope=".")
    await call("rlm.search.regex", **session, pattern="line 4", scope=".")
    await call("rlm.exec.run", **session, code="print('ä' * 1000)")
    assert (await call("rlm.complete", **session, task="?"))["success"]
    graph = (await call("rlm.provenance.report", **session))["provenance_graph"]
    (report,) = received["rlm.provenance.report"]
    await call("rlm.session.close", **session)
    (closed,) = received["rlm.session.close"]
    await gateway.close()

    total = sum(map(sum, received.values()))
    by_reader = {"caller": 0, "model": 0}
    for output in graph["outputs"]:
        by_reader[output["reader"]] += output["bytes"]
    assert set(received) == set(TOOLS)
    assert by_reader["caller"] + graph["refusals"]["bytes"] + report + closed == total
    assert graph["refusals"]["count"] == 2
    assert by_reader["model"] > 0
    assert audit(gateway.trail.path).output_bytes == total + by_reader["model"]


async def test_the_spans_of_a_report_are_what_the_files_hold(client, repository):
    await read_something(client)
    handle = await client.handle("wide.txt")
    await client.ok("rlm.span.read", file_handle=handle, start_line=1, end_line=1, max_bytes=101)
    paths = {item["file_handle"]: item["path"] for item in (await client.ok("rlm.fs.manifest", root="."))["files"]}
    for span in (await client.ok("rlm.provenance.report"))["provenance_graph"]["spans"]:
        lines = (repository / paths[span["file_handle"]]).read_text().split("\n")
        content = "\n".join(lines[span["start_line"] - 1 : span["end_line"]]).encode()[: span["bytes"]]
        assert digest(content) == span["content_hash"]


@pytest.mark.parametrize("left", [0, 40])
async def test_a_trail_verifies_after_a_disk_was_full_for_a_while(client, gateway, left):
    """`left`: bytes that a file can still grow, so that no part or a part of the next line fits."""
    handle = await client.handle("README.md")
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (gateway.trail.path.stat().st_size + left, most[1]))
    try:
        with pytest.raises(OSError, match="full|large"):
            await client("rlm.span.read", file_handle=handle, start_line=1, end_line=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    await client.ok("rlm.span.read", file_handle=handle, start_line=1, end_line=1)
    found = audit(gateway.trail.path)
    assert (found.flaw, found.spans, found.is_cut) == (None, 1, False)


async def test_a_session_is_closed_while_one_of_its_tools_still_runs(client, gateway):
    """A result is counted in the event loop: it must not wait there for a long search of the same session."""
    session, runs, may_end, ended = (
        gateway.sessions.find(client.session, OWNER.name),
        threading.Event(),
        threading.Event(),
        [],
    )

    def run():
        with session.lock:
            runs.set()
            ended.append(may_end.wait(5))

    running = asyncio.create_task(asyncio.to_thread(run))
    await asyncio.to_thread(runs.wait)
    await client.ok("rlm.session.close")
    may_end.set()
    await running
    assert ended == [True]
