"""Search: ranked, over all text files, and up to date."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from gateway.session_client import Client

from rlm_kernel.gateway import index, searching
from rlm_kernel.gateway.gateway import Gateway


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


async def test_what_was_changed_is_forgotten_with_all_of_its_words(client, gateway, repository):
    for text in ("SessionManager\n" * 100, "sessionManager übung\n" * 30, "", "\n", "\xa0\x85\u2028x\n"):
        (repository / "src" / "new.py").write_text(text)
        await paths(client, query="manager")
    (repository / "src" / "new.py").unlink()
    await paths(client, query="manager")
    with gateway.services.index._connection() as database:
        database.execute("INSERT INTO windows (windows) VALUES ('integrity-check')")
        asked = "SELECT count(*) FROM windows WHERE windows MATCH ?"
        counts = [database.execute(asked, (word,)).fetchone()[0] for word in ("übung", "new", "sessionmanager")]
    assert counts == [0, 0, 1]


async def test_files_outside_of_the_patterns_do_not_use_up_the_scan(client, repository, monkeypatch):
    monkeypatch.setattr(searching, "MAX_FILES", 3)
    for number in range(10):
        (repository / "src" / f"a{number}.py").write_text("needle\n")
    (repository / "z.rst").write_text("needle\n")
    assert await paths(client, "regex", pattern="needle", include_patterns=["*.rst"]) == ["z.rst"]
    found = await client.ok("rlm.search.regex", pattern="needle", scope=".")
    assert (len(found["results"]), found["truncated"]) == (3, True)


async def test_a_scan_that_takes_too_long_is_told(client, monkeypatch):
    monkeypatch.setattr(searching, "MAX_SECONDS", 0.0)
    found = await client.ok("rlm.search.regex", pattern="line", scope=".")
    assert (found["results"], found["truncated"]) == ([], True)


async def test_an_expression_does_not_match_across_lines(client):
    assert await paths(client, "regex", pattern=r"line 1 of the session\s+line 2") == []


async def test_two_gateways_share_an_index_and_both_are_up_to_date(client, repository, tmp_path):
    other = Gateway(repository, tmp_path / "data")
    second = await Client(other).begin(".")

    async def search(one):
        return await paths(one, query="zebra")

    for number in range(3):
        (repository / "src" / f"new{number}.py").write_text("zebra\n")
        found = await asyncio.gather(*map(search, (client, second) * 3))
        assert all(len(names) == number + 1 for names in found)
    await other.close()


async def test_an_index_that_another_gateway_is_writing_is_used_as_it_is(client, gateway, monkeypatch, capsys):
    assert await paths(client, query="kernel")
    monkeypatch.setattr(index, "LOCKED_SECONDS", 0.01)
    with gateway.services.index._connection() as database:
        database.execute("BEGIN IMMEDIATE")
        assert await paths(client, query="kernel")
    assert "is not up to date" in capsys.readouterr().err


async def test_searches_that_wait_for_the_index_keep_no_other_tool_waiting(gateway, client, monkeypatch):
    may_end = threading.Event()
    monkeypatch.setattr(gateway.services.index, "refresh", lambda: may_end.wait(8))
    others = [await Client(gateway).begin(".") for _ in range(40)]
    searches = [asyncio.create_task(other("rlm.search.query", query="x", scope=".")) for other in others]
    await asyncio.sleep(0)
    await client.ok("rlm.fs.list", root=".")
    assert not any(search.done() for search in searches)
    may_end.set()
    await asyncio.gather(*searches)
