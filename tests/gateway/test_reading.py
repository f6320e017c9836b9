"""Bounded reading: limits, handles, restricted names, and what a tree must not give."""

from __future__ import annotations

import contextlib
import os
import stat
import threading

import pytest
from gateway.session_client import OWNER, Client

from rlm_kernel.errors import ConfigError
from rlm_kernel.gateway import limits
from rlm_kernel.gateway.gateway import Caller, Gateway
from rlm_kernel.gateway.refusals import RefusedError
from rlm_kernel.gateway.tree import Tree, is_restricted, parts_of

LEADS_OUT = ["../x", "src/../../x", "/etc/passwd", "~/x", "a\0b", "a\\..\\b", "\ud800", "a/" * 200]


async def test_200_lines_are_read_and_201_are_refused(client):
    handle = await client.handle("src/session.py")
    span = await client.ok("rlm.span.read", file_handle=handle, start_line=101, end_line=300)
    assert span["content"].count("\n") == 199
    assert (span["start_line"], span["end_line"], span["total_lines"]) == (101, 300, 500)
    refused = await client.refused("rlm.span.read", file_handle=handle, start_line=101, end_line=301)
    assert refused == "Span too large: 201 > 200 lines"


@pytest.mark.parametrize("asked", [8192, 10_000, 1 << 30])
async def test_8_kib_are_8_kib_of_utf_8_whatever_is_asked_for(client, asked):
    handle = await client.handle("wide.txt")
    span = await client.ok("rlm.span.read", file_handle=handle, start_line=1, end_line=1, max_bytes=asked)
    assert len(span["content"].encode()) == 8192
    assert span["metadata"] == {"line_count": 1, "byte_count": 8192, "is_truncated": True}


async def test_a_character_is_not_cut(client):
    handle = await client.handle("wide.txt")
    span = await client.ok("rlm.span.read", file_handle=handle, start_line=1, end_line=1, max_bytes=5)
    assert span["content"] == "ää"


async def test_a_span_that_was_read_before_is_told(client):
    handle = await client.handle("README.md")
    first = await client.ok("rlm.span.read", file_handle=handle, start_line=1, end_line=1)
    again = await client.ok("rlm.span.read", file_handle=handle, start_line=1, end_line=1)
    assert first["warning"] is None
    assert "has been accessed before" in again["warning"]


@pytest.mark.parametrize(("size", "overlap", "first"), [(100, 10, (91, 190)), (50, 0, (51, 100)), (200, 199, (2, 201))])
async def test_chunks_have_the_size_and_the_overlap_that_were_asked_for(client, size, overlap, first):
    handle = await client.handle("src/session.py")
    chunks = await client.ok("rlm.chunk.create", file_handle=handle, chunk_size=size, overlap=overlap, budget=50)
    second = await client.ok("rlm.chunk.get", chunk_id=chunks["chunk_ids"][1])
    assert (second["start_line"], second["end_line"]) == first


async def test_chunks_cover_the_file_and_end_with_it(client):
    handle = await client.handle("src/session.py")
    chunks = await client.ok("rlm.chunk.create", file_handle=handle, chunk_size=100, overlap=10, budget=50)
    assert chunks["total_chunks"] == len(chunks["chunk_ids"]) == 6
    last = await client.ok("rlm.chunk.get", chunk_id=chunks["chunk_ids"][-1])
    assert last["end_line"] == 500


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"chunk_size": 201}, "Chunk size too large: 201 > 200"),
        ({"budget": 51}, "Budget too large: 51 > 50"),
        ({"chunk_size": 5, "overlap": 5}, "overlap must be less than chunk_size"),
        ({"strategy": "semantic"}, "Invalid argument: strategy"),
    ],
)
async def test_chunks_beyond_the_limits_are_refused(client, given, words):
    handle = await client.handle("src/session.py")
    assert words in await client.refused("rlm.chunk.create", file_handle=handle, **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "Missing argument: root: a folder, relative to the repository; '.' is all of it"),
        ({"root": ".", "session_id": 1}, "Invalid argument: session_id"),
        ({"root": ".", "deph": 1}, "Unknown argument: deph. Did you mean depth?"),
        ({"root": ".", "path": "."}, "Unknown argument: path. Known: depth, patterns, root, session_id."),
        ({"root": ".", "a/secret": "."}, "Invalid argument: an argument: Extra inputs are not permitted"),
        ({"root": ".", "x" * 41: "."}, "Invalid argument: an argument: Extra inputs are not permitted"),
    ],
)
async def test_a_wrong_argument_says_what_to_give(client, given, words):
    assert (await client.refused("rlm.fs.list", **given)).startswith(words)


async def test_a_call_without_a_session_names_the_tool_that_makes_one(gateway):
    said = await gateway.call("rlm.provenance.report", {}, OWNER)
    assert said["error"] == "Missing argument: session_id: from rlm.session.create"


@pytest.mark.parametrize(
    ("scope", "refused"),
    [
        ("read", ["rlm.complete", "rlm.exec.run"]),
        ("exec", ["rlm.complete", "rlm.fs.list", "rlm.roots.set"]),
        ("complete", ["rlm.exec.run", "rlm.fs.list"]),
    ],
)
async def test_a_key_of_each_scope_can_have_a_session(gateway, scope, refused):
    client = await Client(gateway, Caller("one", frozenset([scope]))).begin()
    tools = ("rlm.complete", "rlm.exec.run", "rlm.fs.list", "rlm.roots.set")
    assert [tool for tool in tools if (await client(tool)).get("error_code") == "NOT_ALLOWED"] == refused
    await client.ok("rlm.provenance.report")
    await client.ok("rlm.session.close")


async def test_a_token_without_a_scope_gets_no_session(gateway):
    said = await gateway.call("rlm.session.create", {}, Caller("one", frozenset()))
    assert said["error_code"] == "NOT_ALLOWED"


async def test_a_list_has_the_depth_and_the_patterns_that_were_asked_for(client):
    async def paths(**given):
        items = (await client.ok("rlm.fs.list", root=".", **given))["items"]
        return {item["path"] for item in items if item["type"] == "file"}

    assert "src/session.py" in await paths(depth=2)
    assert "src/deep/er/leaf.py" not in await paths(depth=3)
    assert await paths(depth=10, patterns=["*.py"]) == {"src/session.py", "src/deep/er/leaf.py"}
    assert await paths(depth=10, patterns=["src/*.py"]) == {"src/session.py"}


async def test_a_list_and_a_manifest_stop_at_1000_entries(client, repository):
    for number in range(1100):
        (repository / "src" / f"f{number}").touch()
    items = (await client.ok("rlm.fs.list", root="src"))["items"]
    assert len(items) == 1001
    assert items[-1] == {"type": "truncated", "message": "Max items reached"}
    manifest = await client.ok("rlm.fs.manifest", root="src")
    assert (len(manifest["files"]), manifest["truncated"]) == (1000, True)
    newest = manifest["files"][-1]["file_handle"]
    await client.ok("rlm.chunk.create", file_handle=newest)


async def test_a_manifest_counts_lines_and_tells_binary_files(client):
    files = {file["path"]: file for file in (await client.ok("rlm.fs.manifest", root="."))["files"]}
    assert files["src/session.py"]["lines"] == 500
    assert files["wide.txt"]["lines"] == 1
    assert files["picture.bin"]["lines"] is None
    assert "environments/spec.txt" in files
    assert "kept.log" in files


@pytest.mark.parametrize("path", [".env", ".env.local", "env/lib.py", "conf/credentials.json", ".git/config", ".ENV"])
async def test_restricted_files_have_no_handle(client, path):
    assert "Access denied" in await client.refused("rlm.fs.handle.create", file_path=path)


@pytest.mark.parametrize("path", ["noise.log", "build/out.txt", "build"])
async def test_ignored_files_have_no_handle(client, path):
    assert await client.refused("rlm.fs.handle.create", file_path=path)


async def test_a_list_shows_neither_restricted_nor_ignored_files(client):
    text = str(await client.ok("rlm.fs.list", root=".", depth=10))
    for name in (".env", "'path': 'env'", "hunter2", "credentials", ".git/", "noise.log", "build"):
        assert name not in text


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        "ENV",
        ".env.production",
        "secrets.yaml",
        "Credentials",
        "id_rsa",
        "a.pem",
        ".env~",
        "#.env#",
        ".credentials.json.swp",
        "secrets.yaml~",
        "production.env",
        ".env-prod",
        ".env_local",
        "\uff0eenv",
        "server.pem.bak",
        "server.key.old~",
        "id_ed25519_sk",
    ],
)
def test_a_name_is_restricted_as_a_whole(name):
    assert is_restricted(name)


@pytest.mark.parametrize(
    "name",
    ["environments", "environment.py", "envoy", "my_secrets_test.py", "git", ".github", ".gitignore", "docker", "keys"],
)
def test_a_name_that_only_contains_a_restricted_one_is_not(name):
    assert not is_restricted(name)


def test_links_hard_links_and_pipes_are_neither_listed_nor_read(repository, tmp_path):
    (tmp_path / "outside.txt").write_text("hunter2")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "secret.txt").write_text("hunter2")
    (repository / "link.txt").symlink_to(tmp_path / "outside.txt")
    (repository / "inside.txt").symlink_to("README.md")
    (repository / "linked").symlink_to(tmp_path / "folder")
    os.link(tmp_path / "outside.txt", repository / "hard.txt")
    os.mkfifo(repository / "pipe")
    with Tree(repository) as tree:
        names = {entry.path for entry in tree.walk((), 10)}
        for path in ("link.txt", "inside.txt", "linked", "linked/secret.txt", "hard.txt", "pipe"):
            assert path not in names
            with pytest.raises(RefusedError):
                tree.read(parts_of(path))


def test_a_folder_that_becomes_a_link_after_the_check_is_not_followed(repository, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "session.py").write_text("hunter2")
    with Tree(repository) as tree:
        parts = parts_of("src/session.py")
        tree.check_file(parts)
        (repository / "src").rename(repository / "moved")
        (repository / "src").symlink_to(tmp_path / "folder")
        with pytest.raises(RefusedError):
            tree.read(parts)


def test_a_root_that_is_replaced_by_a_link_stays_what_it_was(repository, tmp_path):
    with Tree(repository) as tree:
        repository.rename(tmp_path / "moved")
        repository.symlink_to("/etc")
        assert tree.read(("README.md",)).lines == ("A repository about kernels.",)


@pytest.mark.parametrize("path", LEADS_OUT)
async def test_a_path_that_leads_out_is_refused_and_not_repeated(client, path):
    for tool, argument in (("rlm.fs.handle.create", "file_path"), ("rlm.fs.list", "root"), ("rlm.fs.manifest", "root")):
        said = await client.refused(tool, **{argument: path})
        assert "etc" not in said


async def test_binary_and_huge_files_are_told_and_not_read(client, repository):
    with (repository / "huge.txt").open("wb") as file:
        file.truncate(limits.MAX_FILE_BYTES + 1)
    for path, words in (("picture.bin", "Binary file: 600 bytes"), ("huge.txt", "File too large")):
        handle = await client.handle(path)
        assert words in await client.refused("rlm.span.read", file_handle=handle, start_line=1, end_line=1)


async def test_nothing_is_read_before_roots_are_set(gateway):
    client = await Client(gateway).begin()
    said = await client.refused("rlm.fs.list", root=".")
    assert said.startswith("No allowed roots configured for session: call rlm.roots.set first")


async def test_only_the_allowed_roots_are_read(gateway):
    client = await Client(gateway).begin("src/deep", "environments")
    await client.handle("src/deep/er/leaf.py")
    for path in ("src/session.py", "README.md"):
        assert "outside of the allowed roots" in await client.refused("rlm.fs.handle.create", file_path=path)
    assert "outside" in await client.refused("rlm.fs.list", root="src")
    assert "Root does not exist" in await client.refused("rlm.roots.set", roots=["absent"])


async def test_a_handle_is_worth_nothing_after_its_root_is_taken_away(client):
    handle = await client.handle("README.md")
    await client.ok("rlm.roots.set", roots=["src"])
    assert "outside" in await client.refused("rlm.span.read", file_handle=handle, start_line=1, end_line=1)


async def test_a_handle_belongs_to_its_session_and_a_session_to_its_caller(gateway, client):
    handle = await client.handle("README.md")
    other = await Client(gateway).begin(".")
    assert await other.refused("rlm.span.read", file_handle=handle, start_line=1, end_line=1) == "Invalid file handle"
    assert await other.handle("README.md") != handle
    stranger = Client(gateway, Caller("stranger"))
    stranger.session = client.session
    assert await stranger.refused("rlm.provenance.report") == "Session not found"


async def test_a_session_ends_with_its_calls(gateway):
    client = await Client(gateway).begin(".", max_tool_calls=3)
    await client.ok("rlm.fs.list", root=".")
    await client.ok("rlm.fs.list", root=".")
    assert await client.refused("rlm.fs.list", root=".") == "Tool call budget exceeded: 3 >= 3"
    assert await client("rlm.session.close") == {"success": True}
    assert await client.refused("rlm.fs.list", root=".") == "Session not found"


async def test_a_result_that_does_not_fit_into_the_output_budget_does_not_leave(gateway):
    client = await Client(gateway).begin(".", max_output_bytes=500)
    handle = await client.handle("src/session.py")
    said = await client.refused("rlm.span.read", file_handle=handle, start_line=1, end_line=200)
    assert said.startswith("Output budget exceeded: ")
    report = await client("rlm.provenance.report")
    assert report["success"] is False or report["provenance_graph"]["spans"] == []


async def test_a_session_ends_with_its_time(gateway):
    client = await Client(gateway).begin(".", timeout_ms=60_000)
    gateway.sessions.find(client.session, "local").began -= 61
    said = await client.refused("rlm.fs.list", root=".")
    assert said.startswith("Timeout exceeded: 61")
    assert said.endswith("Create a new session with rlm.session.create.")
    await Client(gateway).begin()
    assert await client.refused("rlm.fs.list", root=".") == "Session not found"


async def test_budgets_are_lowered_to_the_largest_that_are_allowed(gateway):
    created = await gateway.call("rlm.session.create", {"config": {"max_tool_calls": 10**9}}, Caller())
    assert created["config"]["max_tool_calls"] == limits.SESSION_TOOL_CALLS


async def test_sessions_are_bounded(gateway, monkeypatch):
    monkeypatch.setattr(limits, "MAX_SESSIONS", 2)
    for _ in range(2):
        await Client(gateway).begin()
    said = await gateway.call("rlm.session.create", {}, Caller())
    assert said["error"] == "Too many sessions: 2 >= 2"


async def test_the_canary_is_told_to_the_caller_and_to_the_operator(repository, tmp_path, capsys):
    (repository / ".rlm_canary_token.txt").write_text("Token: RLM_CANARY_abc123\n")
    (repository / "copy.txt").write_text("it says RLM_CANARY_abc123\n")
    gateway = Gateway(repository, tmp_path / "data")
    client = await Client(gateway).begin(".")
    for path in (".rlm_canary_token.txt", "copy.txt"):
        handle = await client.handle(path)
        span = await client.ok("rlm.span.read", file_handle=handle, start_line=1, end_line=1)
        assert span["warning"].startswith("SECURITY WARNING: Canary token detected in content.")
    found = await client.ok("rlm.search.query", query="says", scope=".")
    assert found["warning"].startswith("SECURITY WARNING")
    assert "SECURITY ALERT" in capsys.readouterr().err
    await gateway.close()


def test_the_data_folder_must_be_outside_of_the_repository(repository):
    with pytest.raises(ConfigError, match="--data-dir"):
        Gateway(repository, repository / "data")


def test_a_device_is_not_opened(repository, monkeypatch):
    try:
        os.mknod(repository / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("needs the right to make devices")
    opened, real = [], os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **more: opened.append(path) or real(path, *rest, **more))
    with Tree(repository) as tree:
        assert "device" not in {entry.path for entry in tree.walk((), 1)}
        with pytest.raises(RefusedError, match="devices are not read"):
            tree.read(("device",))
    assert "device" not in opened


def test_a_file_that_is_swapped_for_a_link_all_the_time_never_gives_what_it_leads_to(repository, tmp_path):
    (tmp_path / "outside.txt").write_text("hunter2")
    target, swapped = repository / "src" / "swapped.txt", repository / "src" / "spare"
    target.write_text("inside")
    done = threading.Event()

    def swap():
        while not done.is_set():
            swapped.symlink_to(tmp_path / "outside.txt")
            swapped.rename(target)
            swapped.write_text("inside")
            swapped.rename(target)
            os.link(tmp_path / "outside.txt", swapped)
            swapped.rename(target)
            swapped.write_text("inside")
            swapped.rename(target)

    thread = threading.Thread(target=swap)
    thread.start()
    found = set()
    try:
        with Tree(repository) as tree:
            for _ in range(2000):
                with contextlib.suppress(RefusedError):
                    found.add(tree.read(("src", "swapped.txt")).lines)
    finally:
        done.set()
        thread.join()
    assert found <= {("inside",), ()}


def test_a_folder_that_is_swapped_for_a_link_all_the_time_never_leads_out(repository, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "session.py").write_text("hunter2")
    (tmp_path / "folder" / "only_outside.py").write_text("hunter2")
    source, kept = repository / "src", repository / "kept"
    done = threading.Event()

    def swap():
        while not done.is_set():
            source.rename(kept)
            source.symlink_to(tmp_path / "folder")
            source.unlink()
            kept.rename(source)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        with Tree(repository) as tree:
            for _ in range(1000):
                with contextlib.suppress(RefusedError):
                    assert "hunter2" not in tree.read(("src", "session.py")).lines
                with contextlib.suppress(RefusedError):
                    assert "only_outside.py" not in str([entry.path for entry in tree.walk(("src",), 2)])
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("line", ["!", "\\", "a\\", "[z-a]", "[", "\ud800", "*a" * 500, "\0"])
def test_a_line_that_is_no_pattern_does_not_change_what_the_others_exclude(repository, line):
    text = f"*.log\n{line}\nbuild/\n"
    (repository / ".gitignore").write_bytes(text.encode("utf-8", "surrogatepass"))
    with Tree(repository) as tree:
        names = {entry.path for entry in tree.walk((), 10)}
        assert "src/session.py" in names
        assert not {"noise.log", "build"} & names


def test_rules_that_are_too_many_for_one_automaton_all_hold(repository):
    many = "".join(f"{'*a' * 150}.x{n}\n" for n in range(80))
    (repository / ".gitignore").write_text(f"*.log\n{many}!kept.log\n")
    with Tree(repository) as tree:
        names = {entry.path for entry in tree.walk((), 1)}
    assert "kept.log" in names
    assert "noise.log" not in names


def test_rules_that_were_changed_hold_at_once_even_with_the_old_time_and_size(repository):
    rules = repository / ".gitignore"
    with Tree(repository) as tree:
        assert "README.md" in {entry.path for entry in tree.walk((), 1)}
        about, text = rules.stat(), rules.read_text()
        rules.write_text("*.md\n".ljust(len(text), "\n"))
        os.utime(rules, ns=(about.st_atime_ns, about.st_mtime_ns))
        assert "README.md" not in {entry.path for entry in tree.walk((), 1)}


@pytest.mark.timeout(60)
async def test_a_pattern_that_backtracks_elsewhere_takes_linear_time(client, repository):
    (repository / ("a" * 200)).touch()
    for patterns in (["*a" * 20 + "*b"], ["*a" * 2000], ["**/*a" * 50]):
        await client("rlm.fs.list", root=".", patterns=patterns)
        await client("rlm.search.query", query="kernel", scope=".", include_patterns=patterns)


RESTRICTED = [".env", ".git", "env", "conf/credentials.json", "env/lib.py"]


@pytest.mark.parametrize("path", RESTRICTED)
async def test_a_restricted_path_is_refused_by_every_tool_that_takes_one(client, path):
    for tool, given in (
        ("rlm.roots.set", {"roots": [path]}),
        ("rlm.fs.list", {"root": path}),
        ("rlm.fs.manifest", {"root": path}),
        ("rlm.fs.handle.create", {"file_path": path}),
        ("rlm.search.query", {"query": "x", "scope": path}),
        ("rlm.search.regex", {"pattern": "x", "scope": path}),
    ):
        assert "Access denied" in await client.refused(tool, **given)
    assert "restricted" not in str(await client.ok("rlm.fs.list", root="environments"))


async def test_a_handle_of_a_file_that_is_ignored_or_linked_later_gives_nothing(client, repository, tmp_path):
    handle = await client.handle("README.md")
    chunks = await client.ok("rlm.chunk.create", file_handle=handle)
    os.link(repository / "README.md", tmp_path / "second.md")
    lines = {"file_handle": handle, "start_line": 1, "end_line": 1}
    assert "hard links" in await client.refused("rlm.span.read", **lines)
    (tmp_path / "second.md").unlink()
    await client.ok("rlm.span.read", **lines)
    (repository / ".gitignore").write_text("README.md\n")
    assert "ignored" in await client.refused("rlm.span.read", **lines)
    assert "ignored" in await client.refused("rlm.chunk.get", chunk_id=chunks["chunk_ids"][0])
    found = await client.ok("rlm.search.query", query="repository", scope=".")
    assert "README.md" not in str(found)


async def test_the_canary_is_told_by_every_tool_that_gives_content(repository, tmp_path):
    (repository / ".rlm_canary_token.txt").write_text("Token: RLM_CANARY_abc123\n")
    gateway = Gateway(repository, tmp_path / "data")
    client = await Client(gateway).begin(".")
    handle = await client.handle(".rlm_canary_token.txt")
    (chunk,) = (await client.ok("rlm.chunk.create", file_handle=handle))["chunk_ids"]
    for tool, given in (
        ("rlm.chunk.get", {"chunk_id": chunk}),
        ("rlm.search.query", {"query": "token", "scope": "."}),
        ("rlm.search.regex", {"pattern": "CANARY", "scope": "."}),
    ):
        assert (await client.ok(tool, **given))["warning"].startswith("SECURITY WARNING")
    await gateway.close()


async def test_a_file_that_becomes_a_link_after_it_was_listed_spoils_no_list(client, gateway, repository, monkeypatch):
    read = gateway.services.tree.read_bytes

    def swap(parts):
        if parts == ("README.md",):
            (repository / "README.md").unlink()
            (repository / "README.md").symlink_to("/etc/passwd")
        return read(parts)

    monkeypatch.setattr(gateway.services.tree, "read_bytes", swap)
    items = (await client.ok("rlm.fs.list", root=".", depth=1))["items"]
    (readme,) = (item for item in items if item["path"] == "README.md")
    assert readme["hash"] is None


@pytest.mark.parametrize("name", ["a\nb.txt", "a\x1b[31m.txt", "zero\u200bwidth.txt", "\u202etxt.exe"])
async def test_a_name_that_is_not_listed_has_no_handle(client, repository, name):
    (repository / name).write_text("x")
    assert name not in {item.get("path") for item in (await client.ok("rlm.fs.list", root="."))["items"]}
    assert "not printable" in await client.refused("rlm.fs.handle.create", file_path=name)
