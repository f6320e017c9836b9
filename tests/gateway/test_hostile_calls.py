"""Calls of any form: no path, no traceback, no limit passed."""

from __future__ import annotations

import asyncio
import json

from gateway.session_client import OWNER, Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlm_kernel.gateway import limits
from rlm_kernel.gateway.gateway import Gateway
from rlm_kernel.gateway.tools import TOOLS
from rlm_kernel.gateway.trail import audit

PATHS = [".", "src", "src/session.py", "wide.txt", ".env", "../x", "/etc/passwd", "picture.bin", "src/../.env", "a\0"]
WORDS = st.one_of(
    st.sampled_from(PATHS), st.text(max_size=30), st.sampled_from(["session", "line", "(a", "hunter2", "*.py"])
)
NUMBERS = st.one_of(st.integers(-5, 300), st.integers(), st.floats())
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
FITTING = {
    "root": WORDS,
    "scope": WORDS,
    "file_path": WORDS,
    "query": WORDS,
    "pattern": WORDS,
    "roots": st.lists(WORDS, max_size=3),
    "code": WORDS,
    "task": WORDS,
    "start_line": st.integers(-1, 600),
    "end_line": st.integers(-1, 600),
    "max_bytes": st.integers(-1, 100_000),
    "chunk_size": st.integers(0, 300),
    "overlap": st.integers(-1, 300),
    "budget": st.integers(0, 100),
    "depth": st.integers(0, 12),
    "k": st.integers(0, 100),
}
HANDLES = ("file_handle", "chunk_id", "session_id")


@st.composite
def calls(draw):
    """A tool and arguments; handles are filled in later, where they are None."""
    tool = TOOLS[draw(st.sampled_from([name for name in TOOLS if name not in ("rlm.exec.run", "rlm.complete")]))]
    names = list(tool.takes.model_fields)
    given_ = {name: draw(FITTING.get(name, VALUES)) for name in names if name not in HANDLES and draw(st.booleans())}
    strange = draw(st.dictionaries(st.text(max_size=8), VALUES, max_size=1)) if draw(st.integers(0, 9)) == 0 else {}
    return tool.name, names, given_ | strange


def check(result, where):
    text = json.dumps(result, ensure_ascii=False)
    for secret in (*where, "Traceback", "hunter2", "/etc/passwd", "/usr/", 'File "'):
        assert secret not in text
    assert result.get("error_code") != "EXECUTION_ERROR"
    if "content" in result:
        assert len(result["content"].encode()) <= limits.MAX_SPAN_BYTES
        assert result["content"].count("\n") < limits.MAX_SPAN_LINES
    assert len(result.get("chunk_ids", ())) <= limits.MAX_CHUNKS
    assert len(result.get("results", ())) <= limits.MAX_RESULTS
    assert len(result.get("items", ())) <= limits.MAX_LISTED + 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(calls(), min_size=1, max_size=15))
def test_no_call_gives_a_path_or_a_traceback_or_more_than_the_limits(repository, tmp_path, made):
    async def run():
        gateway = Gateway(repository, tmp_path / "data")
        client = await Client(gateway).begin(".")
        known = {
            "session_id": client.session,
            "file_handle": await client.handle("src/session.py"),
            "chunk_id": "chunk_unknown",
        }
        for name, names, given_ in made:
            handles = {name: known[name] for name in HANDLES if name in names}
            result = await gateway.call(name, handles | given_, OWNER)
            check(result, (str(repository), str(tmp_path)))
            known["chunk_id"] = (result.get("chunk_ids") or [known["chunk_id"]])[0]
            session = gateway.sessions._sessions.get(client.session)
            assert session is None or session.tool_calls <= session.config.max_tool_calls
        await gateway.close()
        assert audit(gateway.trail.path).flaw is None

    asyncio.run(run())
