"""Each tool over the protocol: under both names its result is what its schema says, and its annotations are true."""

from __future__ import annotations

import contextlib

import jsonschema
import pytest
from gateway.gateway_process import call
from mcp import Client

from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.gateway.gateway import Gateway
from rlm_kernel.gateway.models import Models
from rlm_kernel.gateway.server import mcp_server
from rlm_kernel.gateway.tools import TOOLS

NAMES = {"dotted": str, "underscores": lambda name: name.replace(".", "_")}
CALLS = {
    "rlm.session.create": {},
    "rlm.roots.set": {"roots": ["."]},
    "rlm.fs.list": {"root": "."},
    "rlm.fs.manifest": {"root": "src"},
    "rlm.fs.handle.create": {"file_path": "src/session.py"},
    "rlm.span.read": {"start_line": 1, "end_line": 2},
    "rlm.chunk.create": {"budget": 2},
    "rlm.chunk.get": {},
    "rlm.search.query": {"query": "session line", "scope": "."},
    "rlm.search.regex": {"pattern": "session", "scope": "."},
    "rlm.exec.run": {"code": "1 + 1"},
    "rlm.complete": {"task": "Answer."},
    "rlm.provenance.report": {"export_json": True},
    "rlm.session.close": {},
}
"""In an order in which each is possible, without the arguments that come from results before."""
CHANGES = {"rlm.session.create", "rlm.session.close", "rlm.roots.set", "rlm.exec.run", "rlm.complete"}
READS = set(CALLS) - CHANGES
DESTROYS = {"rlm.session.close", "rlm.exec.run"}


@contextlib.asynccontextmanager
async def connected(repository, tmp_path):
    gateway = Gateway(repository, tmp_path / "data", Models(ScriptedLM(["FINAL(done)"] * 2), environment="local"))
    try:
        async with Client(mcp_server(gateway)) as client:
            yield client
    finally:
        await gateway.close()


@pytest.mark.parametrize("named", NAMES.values(), ids=NAMES)
async def test_every_result_is_what_the_schema_of_its_tool_says(docker_engine, repository, tmp_path, named):
    known = {}
    assert set(CALLS) == set(TOOLS)
    async with connected(repository, tmp_path) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        for name, given in CALLS.items():
            tool = tools[named(name)]
            wanted = [key for key in tool.input_schema.get("required", ()) if key not in given]
            arguments = {**given, **{key: known[key] for key in wanted}}
            jsonschema.validate(arguments, tool.input_schema)
            result = await call(client, named(name), **arguments)
            assert "error" not in result, (name, result)
            jsonschema.validate(result, tool.output_schema)
            assert set(result) <= set(tool.output_schema["properties"]), name
            known |= result | {"chunk_id": result.get("chunk_ids", [known.get("chunk_id")])[0]}


async def test_annotations_say_what_a_tool_does(repository, tmp_path):
    async with connected(repository, tmp_path) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    for name, tool in TOOLS.items():
        for shown in (tools[name], tools[tool.alias]):
            about = shown.annotations
            assert (about.read_only_hint, about.destructive_hint) == (name in READS, name in DESTROYS), name
            assert about.open_world_hint is (name == "rlm.complete")


async def test_a_call_with_wrong_arguments_is_an_error_that_names_them(repository, tmp_path):
    async with connected(repository, tmp_path) as client:
        result = await call(client, "rlm_fs_list", session_id="x", root=7)
        assert (result["error_code"], "root" in result["error"]) == ("INVALID_ARGUMENT", True)
        result = await call(client, "rlm_fs_list")
        assert (result["error_code"], "session_id" in result["error"]) == ("MISSING_ARGUMENT", True)
