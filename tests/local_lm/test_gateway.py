"""`rlm.complete` with the real model on this repository: its citations are what the files hold.

Handles are random, so there are no recorded replies.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rlm_kernel.gateway.gateway import Caller, Gateway
from rlm_kernel.gateway.models import Models
from rlm_kernel.gateway.tree import digest

pytestmark = [pytest.mark.full, pytest.mark.timeout(900), pytest.mark.usefixtures("real_model")]

REPOSITORY = Path(__file__).parents[2]
TASK = (
    "What is the value of MAX_SPAN_LINES? Run this: "
    "hit = grep_files('^MAX_SPAN_LINES =', 'rlm_kernel')[0]; "
    "print(read_lines(hit['file_handle'], hit['start_line'], hit['end_line']))"
)


async def test_a_question_about_this_repository_is_answered_with_citations_that_exist(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    gateway = Gateway(REPOSITORY, tmp_path / "data", Models("llamacpp", environment="local"))
    caller, heard = Caller(), []

    async def call(tool, **given):
        return await gateway.call(tool, given, caller, progress)

    async def progress(*what):
        heard.append(what)

    session = {"session_id": (await call("rlm.session.create", config={}))["session_id"]}
    await call("rlm.roots.set", **session, roots=["rlm_kernel"])
    done = await call("rlm.complete", **session, task=TASK)
    files = (await call("rlm.fs.manifest", **session, root="rlm_kernel"))["files"]
    graph = (await call("rlm.provenance.report", **session))["provenance_graph"]
    await gateway.close()

    assert "200" in done["answer"]
    assert heard
    paths = {file["file_handle"]: file["path"] for file in files}
    citations = done["structured_answer"]["citations"]
    assert "rlm_kernel/gateway/limits.py" in {paths[citation["file_handle"]] for citation in citations}
    for citation in citations:
        assert citation in graph["spans"]
        lines = (REPOSITORY / paths[citation["file_handle"]]).read_text().split("\n")
        content = "\n".join(lines[citation["start_line"] - 1 : citation["end_line"]]).encode()
        assert digest(content[: citation["bytes"]]) == citation["content_hash"]
