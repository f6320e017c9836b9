"""What the server hands out, and to whom."""

from __future__ import annotations

import errno
import json
from http.client import HTTPConnection

import pytest
from viewer import long_logs, many_logs
from viewer.reference_logs import reference_log

from rlm_kernel.errors import ConfigError, RecordingError
from rlm_kernel.html.prose import in_words
from rlm_kernel.trajectory.runs import index
from rlm_kernel.viewer.folder import Folder, folder_of
from rlm_kernel.viewer.server import ViewerServer


class Asker:
    def __init__(self, server):
        self.port = server.port
        self.home = server.access.home.removesuffix("/")
        self.cookie = server.access.cookie(server.port).partition(";")[0]

    def __call__(self, path, method="GET", **headers):
        """Ask as the page does, with its cookie."""
        return self.bare(f"{self.home}{path}", method, **{"Cookie": self.cookie, **headers})

    def bare(self, path, method="GET", **headers):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()


@pytest.fixture
def ask(logs, long_log):
    (logs.parent / "secret.jsonl").write_text("{}")
    (logs / "notes.txt").write_text("not a log")
    (logs / "deeper").mkdir()
    (logs / "deeper" / "inner.jsonl").write_text("{}")
    (logs / "outside.jsonl").symlink_to(logs.parent / "secret.jsonl")
    with ViewerServer(Folder(logs), 0) as server:
        yield Asker(server)


def test_the_page_runs_our_script_and_nothing_else(ask):
    status, headers, page = ask("/")
    assert status == 200
    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert page.count(b"<script") == 1
    assert b'<script type="module" src="viewer.js"></script>' in page
    assert ask("/viewer.js")[1]["Content-Type"] == "text/javascript; charset=utf-8"


def test_a_log_is_read_on_from_an_offset(ask, long_log):
    whole = long_log.read_bytes()
    assert ask("/logs/long.jsonl")[2] == whole
    assert ask(f"/logs/long.jsonl?from={len(whole) - 10}")[2] == whole[-10:]
    status, headers, content = ask(f"/logs/long.jsonl?from={len(whole) + 5}")
    assert (status, headers["X-Log-Fresh"], content) == (200, "yes", b"")


@pytest.mark.parametrize("start", ["-1", "x", "1e3", "9" * 30, "%00", "²"])
def test_a_wrong_offset_is_refused(ask, start):
    from urllib.parse import quote

    assert ask(f"/logs/long.jsonl?from={quote(start, safe='%')}")[0] == 400


OUTSIDE = [
    "/logs/../secret.jsonl", "/logs/..%2fsecret.jsonl", "/logs/%2e%2e/secret.jsonl", "/logs/deeper/inner.jsonl",
    "/logs/deeper%2finner.jsonl", "/logs/outside.jsonl", "/logs/notes.txt", "/logs/", "/logs/.", "/logs/%00",
    "/../etc/passwd", "//etc/passwd", "/logs//etc/passwd", "/deeper", "/viewer.css", "/index.html", "/logs/long.jsonl/",
    "/logs/%ff.jsonl",
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_only_the_logs_of_the_folder_are_handed_out(ask, path):
    status, _, content = ask(path)
    assert status == 404
    assert b"{}" not in content


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", "", "[::1]:{port}"]
)
def test_a_name_that_only_leads_here_is_refused(ask, host):
    for path in ("/", "/logs", "/logs/long.jsonl"):
        assert ask(path, Host=host.format(port=ask.port))[0] == 403


def test_both_names_of_this_server_are_its_own(ask):
    assert ask("/logs", Host=f"localhost:{ask.port}", Origin=f"http://localhost:{ask.port}")[0] == 200
    assert ask("/logs", Host=f"127.0.0.1:{ask.port}", Sec_Fetch_Site="same-origin")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_another_page_is_refused(ask, headers):
    status, _, content = ask("/logs", **headers)
    assert (status, content.decode()) == (
        403,
        f"This viewer answers requests of its own page only, at http://127.0.0.1:{ask.port}/",
    )


def test_a_link_on_another_page_may_lead_here(ask):
    assert ask("/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_else_can_be_changed(ask, method):
    assert ask("/logs", method)[0] == 501


def test_head_gives_no_content(ask, long_log):
    status, headers, content = ask("/logs/long.jsonl", "HEAD")
    assert (status, int(headers["Content-Length"]), content) == (200, long_log.stat().st_size, b"")


def test_it_listens_on_loopback_only(logs):
    with ViewerServer(Folder(logs), 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_said(logs):
    with ViewerServer(Folder(logs), 0) as server, pytest.raises(ConfigError, match=f"Port {server.port} .*--port 0"):
        ViewerServer(Folder(logs), server.port)
    with pytest.raises(ConfigError, match="Port 99999"):
        ViewerServer(Folder(logs), 99999)


def test_the_list_tells_of_each_run(ask, logs):
    reference_log(logs / "reference.jsonl")
    (logs / "empty.jsonl").write_bytes(b"")
    (logs / "broken.jsonl").write_bytes(b"\xff not json\n[]\n")
    story = long_logs.Story(logs / "running.jsonl")
    story.ask(1, "x" * 3_000_000)
    failed = long_logs.Story(logs / "failed.jsonl")
    failed.add(long_logs.events.RunFailed, error=RecordingError("gone"))
    runs = {run["name"]: run for run in json.loads(ask("/logs")[2])["runs"]}
    assert set(runs) == {
        "long.jsonl",
        "reference.jsonl",
        "empty.jsonl",
        "broken.jsonl",
        "running.jsonl",
        "failed.jsonl",
    }
    long = runs["long.jsonl"]
    assert (long["state"], long["question"], long["answer"]) == (
        "answered",
        long_logs.QUESTION,
        in_words(long_logs.ANSWER),
    )
    assert (long["model"], long["tokens"], round(long["cost"], 4)) == ("large-model", 914_426, 0.2997)
    reference = runs["reference.jsonl"]
    assert (reference["state"], reference["question"], reference["answer"]) == ("answered", "And again?", "Forty-two")
    assert (reference["cost"], reference["tokens"], reference["seconds"]) == (None, None, 23.5)
    assert (runs["running.jsonl"]["state"], runs["running.jsonl"]["question"]) == ("running", long_logs.QUESTION)
    assert (runs["failed.jsonl"]["state"], runs["failed.jsonl"]["error"]) == ("failed", "RecordingError: gone")
    assert (runs["broken.jsonl"]["question"], runs["empty.jsonl"]["question"]) == ("", "")


HOSTILE_ENDS = {
    "a figure of 400 digits": '{"type":"finished","response":"a","execution_time":1' + "0" * 400 + "}",
    "tokens beyond all sums": '{"type":"finished","response":"a","usage_summary":{"model_usage_summaries":{"m":'
    '{"total_input_tokens":1e308,"total_output_tokens":1e308}}}}',
    "brackets without end": '{"type":"finished","response":"a"}\n' + "[" * 100_000,
}


@pytest.mark.parametrize("end", HOSTILE_ENDS.values(), ids=HOSTILE_ENDS)
def test_a_log_that_is_made_to_break_its_readers_breaks_no_list(ask, logs, end):
    (logs / "bad.jsonl").write_text(f'{{"type":"metadata","question":"q"}}\n{end}\n')
    runs = {run["name"]: run for run in json.loads(ask("/logs")[2])["runs"]}
    bad = runs["bad.jsonl"]
    assert (bad["question"], bad["answer"], bad["seconds"]) == ("q", "a", None)
    assert runs["long.jsonl"]["state"] == "answered"


def test_a_log_that_the_disk_does_not_give_has_a_row_that_says_so(logs, long_log, monkeypatch):
    def fails(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(index, "summary_of", fails)
    kept = Folder(logs)
    assert [run.error for run in kept.summaries()] == ["It cannot be read: Input/output error"]
    monkeypatch.undo()
    assert [run.state for run in kept.summaries()] == ["answered"]


def test_a_log_without_an_end_that_is_old_is_not_running(logs):
    import os

    path = logs / "old.jsonl"
    long_logs.Story(path)
    os.utime(path, (1_000_000, 1_000_000))
    assert [run.state for run in Folder(logs).summaries()] == ["lost"]


def test_a_very_long_last_line_is_read_too(logs):
    story = long_logs.Story(logs / "long.jsonl")
    story.finish("z" * 3_000_000)
    (run,) = Folder(logs).summaries()
    assert (run.state, run.answer) == ("answered", "z" * 599 + "…")


def test_a_single_log_is_all_that_is_shown(logs, long_log):
    reference_log(logs / "other.jsonl")
    single = folder_of(str(long_log))
    assert single.logs() == [long_log]
    assert single.log("other.jsonl") is None


def test_a_link_to_a_log_shows_the_log_it_leads_to(logs, long_log):
    link = logs.parent / "latest.jsonl"
    link.symlink_to(long_log)
    single = folder_of(str(link))
    assert single.logs() == [long_log]
    assert single.only == long_log.name


def test_the_usual_folders_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no folder \./rlm_logs or \./logs here: run `rlm run"):
        folder_of(None)
    (tmp_path / "logs").mkdir()
    assert str(folder_of(None).path) == "logs"
    (tmp_path / "rlm_logs").mkdir()
    assert str(folder_of(None).path) == "rlm_logs"


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no folder or log 'missing'"):
        folder_of("missing")
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(RecordingError, match="not a log"):
        folder_of(str(tmp_path / "text.txt"))


def post(ask, change, path="/notes", **headers):
    body = json.dumps(change).encode()
    connection = HTTPConnection("127.0.0.1", ask.port, timeout=10)
    own = {"Cookie": ask.cookie, "Origin": f"http://127.0.0.1:{ask.port}"} | headers
    connection.request("POST", f"{ask.home}{path}", body, {key: value for key, value in own.items() if value})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def test_notes_are_written_and_listed(ask, logs):
    change = {"name": "long.jsonl", "add_tags": ["good"], "thumb": "up", "note": "Mine."}
    assert post(ask, change) == (200, "{}")
    listed = json.loads(ask("/logs?tag=good")[2])
    (row,) = listed["runs"]
    assert (row["tags"], row["thumb"], row["note"], listed["tags"]) == (["good"], "up", "Mine.", ["good"])
    assert json.loads(ask("/logs?tag=bad")[2])["found"] == 0
    assert (logs / "rlm-runs.notes").is_file()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": ""}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Cookie": ""}, 403),
    ],
)
def test_a_foreign_page_changes_no_notes(ask, logs, headers, status):
    assert post(ask, {"name": "long.jsonl", "add_tags": ["bad"]}, **headers)[0] == status
    assert not (logs / "rlm-runs.notes").exists()


@pytest.mark.parametrize(
    "change",
    [[], None, {"name": "../secret.jsonl", "note": "x"}, {"name": "long.jsonl", "add_tags": "x"},
     {"name": "long.jsonl", "add_tags": [1]}, {"name": "long.jsonl", "note": "x" * 70_000},
     {"name": "long.jsonl", "thumb": 1}],
)  # fmt: skip
def test_notes_that_cannot_be_are_refused(ask, logs, change):
    assert post(ask, change)[0] == (413 if len(str(change)) > 1 << 16 else 400)
    assert not list(logs.parent.rglob("*.notes"))


def test_only_notes_can_be_posted(ask):
    assert post(ask, {}, "/logs")[0] == 404


def test_the_list_is_filtered_sorted_and_given_in_parts(ask, logs):
    many_logs.make_folder(logs, 150)
    first = json.loads(ask("/logs?sort=cost&count=20")[2])
    assert (first["count"], first["found"], len(first["runs"]), first["points"]) == (151, 151, 20, None)
    costs = [run["cost"] for run in first["runs"]]
    assert costs == sorted(costs, reverse=True)
    found = json.loads(ask("/logs?state=answered&model=gpt-5-mini&plot=yes")[2])
    assert found["states"] == {"answered": found["found"]}
    assert {len(found["points"][name]) for name in ("began", "seconds", "cost", "state", "model")} == {found["found"]}
    assert ask("/logs?state=gone")[0] == 400


def test_a_summary_in_a_hostile_index_is_only_text(ask, logs):
    (logs / "rlm-runs.index").write_text('{"version": 1, "runs": {"long.jsonl": [1, {"name": "../x", "size": 1}]}}')
    assert [run["name"] for run in json.loads(ask("/logs")[2])["runs"]] == ["long.jsonl"]
