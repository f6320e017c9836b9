"""Calls of any form to every tool, over the protocol: no path, no traceback, no limit passed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random

import mcp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.gateway import kernels, limits
from rlm_kernel.gateway.gateway import Gateway
from rlm_kernel.gateway.models import Models
from rlm_kernel.gateway.server import mcp_server
from rlm_kernel.gateway.tools import TOOLS
from rlm_kernel.gateway.trail import audit
from rlm_kernel.provisioners.kernelspecs import environment

PATHS = [".", "src", "src/session.py", "wide.txt", ".env", "../x", "/etc/passwd", "picture.bin", "src/../.env", "a\0"]
LONG = ["x" * 5000, "ä" * 70_000, "[" * 3000, "(" * 900, "a/" * 2500, "(a{1,1000}){1,1000}"]
WORDS = st.one_of(
    st.sampled_from(PATHS),
    st.text(max_size=30),
    st.sampled_from(["session", "line", "(a", "hunter2", "*.py", "!", "\\", "\\p{", "[!a", "[z-a]", "*a" * 40]),
    st.sampled_from(LONG),
)
NUMBERS = st.one_of(st.integers(-5, 300), st.integers(), st.floats(), st.sampled_from([2**53, 2**64, 10**400]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
BUDGETS = st.fixed_dictionaries(
    {}, optional={name: st.one_of(st.integers(1, 5), VALUES) for name in ("max_iterations", "max_depth", "max_tokens")}
)
FITTING = {
    "root": WORDS,
    "scope": WORDS,
    "file_path": WORDS,
    "query": WORDS,
    "pattern": WORDS,
    "roots": st.lists(WORDS, max_size=3),
    "include_patterns": st.lists(WORDS, max_size=3),
    "patterns": st.lists(WORDS, max_size=3),
    "task": WORDS,
    "start_line": st.one_of(st.just(1), st.integers(-1, 600)),
    "end_line": st.one_of(st.sampled_from([1, 200, 201]), st.integers(-1, 600)),
    "max_bytes": st.one_of(st.just(100_000), st.integers(-1, 10_000)),
    "chunk_size": st.integers(0, 300),
    "overlap": st.integers(-1, 300),
    "budget": st.integers(0, 100),
    "depth": st.integers(0, 12),
    "k": st.integers(0, 100),
    "export_json": st.booleans(),
    "timeout_ms": st.one_of(st.integers(1000, 40_000), VALUES),
    "memory_limit_mb": st.one_of(st.just(256), VALUES),
    "budgets": BUDGETS,
    "constraints": st.fixed_dictionaries({}, optional={"allowed_roots": st.lists(WORDS, max_size=2)}),
    "response_format": st.sampled_from(["text", "structured", "html"]),
    "code": st.one_of(
        WORDS,
        st.sampled_from(
            [
                "1 / 0",
                "print('x' * 10**7)",
                "import sys; print('\\ud800', file=sys.stderr); sys.exit(3)",
                "raise type('\\ud800', (Exception,), {})('x' * 10**7)",
                "def f(): return f()\nf()",
                "open('absent')",
                "x" * 10_240,
                "ä" * 5121,
                "get_ipython().kernel.do_shutdown(False)",
                "llm_query('?')",
            ]
        ),
    ),
}
HANDLES = ("file_handle", "chunk_id", "session_id")
RUNNING = ("rlm.exec.run", "rlm.complete")
READING = [name for name in TOOLS if name not in RUNNING] + ["rlm.span.read"] * 8
REPLIES = [
    "FINAL(ok)",
    "FINAL(" + "ä" * 10**6 + ")",
    "```repl\nFINAL(grep_files('session')[0]['snippet'])\n```",
    "```repl\nread_lines('file_unknown')\n```",
    "```repl\nlist_files('../..')\n```",
    "```repl\nsearch_files(list_files)\n```",
    "```repl\nread_lines(list_files()[-1]['file_handle'], -10**400, None)\n```",
    "```repl\n1 / 0\n```",
    "\ud800 nothing",
    "",
]
WHYS = [OSError(2, "No such file", "/etc/passwd"), RuntimeError('File "/usr/lib/x.py", line 1'), KeyError("/usr/a/b")]


def replying():
    """A model that answers anything, and fails now and then."""
    pick = random.Random(0)

    def reply(_):
        if pick.random() < 0.1:
            raise pick.choice(WHYS)
        return pick.choice(REPLIES)

    return ScriptedLM(reply)


@st.composite
def calls(draw, names):
    """A tool, under either name, and arguments; handles are filled in later."""
    tool = TOOLS[draw(st.sampled_from(names))]
    fields = list(tool.takes.model_fields)
    needed = {name for name, field in tool.takes.model_fields.items() if field.is_required()}
    fits = draw(st.integers(0, 3)) > 0  # most calls have what they need, so that they get through
    given_ = {
        name: draw(FITTING.get(name, VALUES) if draw(st.integers(0, 9)) else VALUES)
        for name in fields
        if name not in HANDLES and ((fits and name in needed) or draw(st.booleans()))
    }
    strange = draw(st.dictionaries(st.text(max_size=8), VALUES, max_size=1)) if draw(st.integers(0, 9)) == 0 else {}
    return draw(st.sampled_from([tool.name, tool.alias])), fields, given_ | strange


class Caller:
    """Calls tools over the protocol, checks what comes back, and keeps handles."""

    def __init__(self, gateway, client, where):
        self.gateway, self.client, self.where = gateway, client, where
        self.known, self.files = {}, []

    async def begin(self):
        created = await self.client.call_tool("rlm.session.create", {})
        self.known = {"session_id": created.structured_content["session_id"], "chunk_id": "chunk_unknown"}
        await self.client.call_tool("rlm.roots.set", {"session_id": self.known["session_id"], "roots": ["."]})
        self.files = []
        for path in ("src/session.py", "wide.txt", "picture.bin"):
            given_ = {"session_id": self.known["session_id"], "file_path": path}
            made = await self.client.call_tool("rlm.fs.handle.create", given_)
            self.files.append(made.structured_content["file_handle"])

    async def __call__(self, name, fields, given_):
        self.files = [*self.files[1:], self.files[0]]
        known = {**self.known, "file_handle": self.files[0]}
        handles = {field: known[field] for field in HANDLES if field in fields}
        answer = await self.client.call_tool(name, handles | given_)
        result = answer.structured_content
        (text,) = answer.content
        assert json.loads(text.text) == result
        assert answer.is_error == ("error" in result)
        self.check(name.replace("_", "."), result)
        self.known["chunk_id"] = (result.get("chunk_ids") or [self.known["chunk_id"]])[0]
        session = self.gateway.sessions._sessions.get(self.known["session_id"])
        if session is None or session.tool_calls >= session.config.max_tool_calls - 20:
            await self.begin()

    def check(self, name, result):
        if name == "rlm.exec.run" and "error" not in result:
            assert len((result["stdout"] + result["stderr"]).encode()) <= limits.MAX_EXEC_OUTPUT_BYTES
            return  # what code prints, in a file tree of its own, is the caller's
        said = json.dumps(result, ensure_ascii=False)
        for secret in (*self.where, "Traceback", "hunter2", "/etc/passwd", "/usr/", 'File "'):
            assert secret not in said
        if name not in RUNNING:
            assert result.get("error_code") != "EXECUTION_ERROR"
        assert name == "rlm.complete" or "error_type" not in result
        assert len(result.get("error", "").encode()) <= 2000
        if "content" in result:
            assert len(result["content"].encode()) <= limits.MAX_SPAN_BYTES
            assert result["content"].count("\n") < limits.MAX_SPAN_LINES
        for many, most in (("chunk_ids", 50), ("results", 10), ("items", 1001), ("files", 1000)):
            assert len(result.get(many, ())) <= most
        for session in self.gateway.sessions.of("local"):
            assert session.tool_calls <= session.config.max_tool_calls
            assert session.output_bytes <= session.config.max_output_bytes


@contextlib.asynccontextmanager
async def opened(repository, tmp_path):
    gateway = Gateway(repository, tmp_path / "data", Models(replying(), environment="local"))
    async with mcp.Client(mcp_server(gateway)) as client:
        caller = Caller(gateway, client, (str(repository), str(tmp_path)))
        await caller.begin()
        yield caller
    await gateway.close()
    assert audit(gateway.trail.path).flaw is None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(calls(READING), min_size=1, max_size=15))
def test_no_call_gives_a_path_or_a_traceback_or_more_than_the_limits(repository, tmp_path, made):
    async def run():
        async with opened(repository, tmp_path) as caller:
            for one in made:
                await caller(*one)

    asyncio.run(run())


@pytest.mark.timeout(300)
async def test_no_run_gives_a_path_or_a_traceback_or_more_than_the_limits(repository, tmp_path, bwrap, monkeypatch):
    where = environment("local", {"sandbox": "bwrap", "memory": "256m"})
    monkeypatch.setattr(kernels, "in_container", lambda _: where)
    loop = asyncio.get_running_loop()

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(calls(RUNNING), min_size=1, max_size=3))
    def check(made):
        for one in made:
            asyncio.run_coroutine_threadsafe(caller(*one), loop).result()

    async with opened(repository, tmp_path) as caller:  # one kernel for all examples
        await asyncio.to_thread(check)
