"""Search: ranked, over all text files, and up to date."""

from __future__ import annotations

import time

import pytest
from gateway.session_client import Client


async def paths(client, tool="query", scope=".", **given):
    found = await client.ok(f"rlm.search.{tool}", scope=scope, **given)
    return [result["path"] for result in found["results"]]


async def test_words_are_found_in_any_text_file_and_ranked(client, repository):
    (repository / "both.md").write_text("The kernel has a place.\n")
    assert (await paths(client, query="kernel place"))[0] in ("both.md", "environments/spec.txt")
    assert set(await paths(client, query="kernel place")) == {"both.md", "environments/spec.txt", "README.md"}
    assert (
        await paths(client, query="session manager")
        == ["src/deep/er/leaf.py", "src/session.py"][:1] + ["src/session.py"] * 4
    )


async def test_a_result_can_be_read_by_its_handle(client):
    found = await client.ok("rlm.search.regex", pattern=r"^line 4\d7 ", scope="src")
    (first, *_) = found["results"]
    lines = {"start_line": first["start_line"], "end_line": first["end_line"]}
    span = await client.ok("rlm.span.read", file_handle=first["file_handle"], **lines)
    assert span["content"] == first["snippet"] == "line 407 of the session"
    assert span["hash"] == first["snippet_hash"]


@pytest.mark.parametrize("word", ["hunter2", "PASSWORD", "password"])
async def test_restricted_and_ignored_files_are_not_found(client, word):
    assert await paths(client, query=word) == []
    assert await paths(client, "regex", pattern=word) == []


async def test_changed_added_and_removed_files_are_found_as_they_are(client, repository):
    assert await paths(client, query="zebra") == []
    (repository / "src" / "new.py").write_text("zebra = 1\n")
    assert await paths(client, query="zebra") == ["src/new.py"]
    (repository / "src" / "new.py").write_text("giraffe = 1\n")
    assert await paths(client, query="zebra") == []
    assert await paths(client, query="giraffe") == ["src/new.py"]
    (repository / "src" / "new.py").unlink()
    assert await paths(client, query="giraffe") == []


async def test_a_search_stays_in_its_scope_its_roots_and_its_patterns(client, gateway):
    assert set(await paths(client, query="session", scope="src/deep")) == {"src/deep/er/leaf.py"}
    assert set(await paths(client, query="kernel", include_patterns=["*.md"])) == {"README.md"}
    other = await Client(gateway).begin("environments")
    assert await paths(other, query="kernel", scope="environments") == ["environments/spec.txt"]
    assert "outside" in await other.refused("rlm.search.query", query="kernel", scope=".")


async def test_an_expression_that_backtracks_elsewhere_takes_linear_time(client, repository):
    (repository / "a.txt").write_text("a" * 30_000 + "b\n")
    started = time.process_time()
    assert await paths(client, "regex", pattern="^(a+)+$") == []
    assert time.process_time() - started < 60


async def test_a_wrong_expression_is_refused_with_the_reason(client):
    said = await client.refused("rlm.search.regex", pattern="(", scope=".")
    assert said.startswith("Invalid regex pattern: missing")


async def test_ten_results_are_the_most_whatever_is_asked_for(client):
    assert len(await paths(client, "regex", pattern="line", k=10_000)) == 10


async def test_the_index_is_read_by_its_owner_only(client, gateway, tmp_path):
    await paths(client, query="kernel")
    (index,) = (tmp_path / "data").glob("*.sqlite")
    assert index.stat().st_mode & 0o077 == 0
