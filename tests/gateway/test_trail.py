"""The trail on disk, and the report: every byte that left is in them."""

from __future__ import annotations

import json

import pytest

from rlm_kernel.gateway.trail import audit


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
