"""What other users, programs and pages of the machine may try with what is shown in a browser."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
import webbrowser
from http.client import HTTPConnection
from pathlib import Path

import pytest
from laboratory import CHROMIUM, browser
from viewer import long_logs

from rlm_kernel.cli import main
from rlm_kernel.viewer.access import Access
from rlm_kernel.viewer.folder import Folder
from rlm_kernel.viewer.server import ViewerServer

SECRET = "the question that nobody else may read"
NOBODY = 65534

AS_ANOTHER = """
import encodings.idna, http.client, os, sys
user, folder, port, *paths = sys.argv[1:]
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
    try:
        sys.exit(f"{os.listdir(folder)} is not private")
    except PermissionError:
        pass
for path in paths:
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
    connection.request("GET", path, headers={"Accept": "text/html"})
    answer = connection.getresponse()
    print(answer.status, answer.read())
"""


@pytest.fixture
def private_logs(tmp_path):
    """A folder of logs that is closed to other users."""
    folder = tmp_path / "logs"
    folder.mkdir(mode=0o700)
    long_logs.long_run(folder / "run.jsonl", turns=1)
    long_logs.Story(folder / "secret.jsonl", question=SECRET).finish("done")
    return folder


@pytest.fixture
def server(private_logs):
    with ViewerServer(Folder(private_logs), 0) as one:
        yield one


def ask(server, path, method="GET", **headers):
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def routes(server):
    """Everything that the server knows, at its path and at the root."""
    names = ["", "viewer.js", "logs", "logs/secret.jsonl", "logs/secret.jsonl?from=10", "missing"]
    return [f"{home}{name}" for home in ("/", server.access.home) for name in names]


def as_another(server, *paths):
    """What another user of the machine reads."""
    # It becomes the other user when it has imported what it needs: our Python may lie in a home that is closed to them.
    command = [sys.executable, "-c", AS_ANOTHER, str(NOBODY), str(server.folder.path), str(server.port), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


def test_another_user_of_the_machine_reads_nothing_of_a_private_folder(server):
    answers = as_another(server, *routes(server))
    assert {answer.split()[0] for answer in answers} == {"403"}
    assert SECRET not in "".join(answers)
    assert "secret.jsonl" not in "".join(answers)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_route_needs_the_token(server, method):
    for path in routes(server):
        status, headers, text = ask(server, path, method)
        assert (status, "Set-Cookie" in headers) == (403, False)
        assert text == ("" if method == "HEAD" else "The token is missing: open the address that `rlm view` printed.")


@pytest.mark.parametrize("token", ["", "x", "{token}x", "{short}", "{upper}", "\u00e9", "%ff", "{token}%00", "None"])
def test_a_wrong_token_is_refused(server, token):
    known = server.access.token
    wrong = token.format(token=known, short=known[:-1], upper=known.swapcase())
    assert ask(server, f"/?token={urllib.request.quote(wrong, safe='%')}")[0] == 403
    sent = f"rlm-viewer-{server.port}={wrong}".encode().decode("latin-1")
    assert ask(server, f"{server.access.home}logs", Cookie=sent)[0] == 403


def test_the_cookie_of_another_server_is_refused(server, private_logs):
    with ViewerServer(Folder(private_logs), 0) as other:
        cookie = other.access.cookie(server.port).partition(";")[0]
        assert ask(server, f"{server.access.home}logs", Cookie=cookie)[0] == 403
        assert ask(server, f"/?token={other.access.token}")[0] == 403


def test_the_token_is_brought_once_and_leaves_the_address(server):
    status, headers, _ = ask(server, f"/?token={server.access.token}")
    assert (status, headers["Location"]) == (303, server.access.home)
    assert headers["Referrer-Policy"] == "no-referrer"
    cookie, *about = headers["Set-Cookie"].split("; ")
    assert sorted(about) == ["HttpOnly", f"Path={server.access.home}", "SameSite=Strict"]
    for others in ("", '{"a": "b"}; ', "broken; =; "):
        status, _, listing = ask(server, f"{server.access.home}logs", Cookie=f"{others}{cookie}")
        assert (status, SECRET in listing) == (200, True)
    assert server.access.token not in listing


def test_the_cookie_is_not_for_the_root_where_every_server_of_localhost_would_get_it(server):
    cookie = ask(server, f"/?token={server.access.token}")[1]["Set-Cookie"].partition(";")[0]
    assert ask(server, "/logs", Cookie=cookie)[0] == 403
    assert re.fullmatch(r"/[0-9a-f]{16}/", server.access.home)


def test_a_name_that_only_leads_here_and_another_page_are_refused_with_the_token_too(server):
    known = f"/?token={server.access.token}"
    cookie = server.access.cookie(server.port).partition(";")[0]
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        for path in (known, f"/logs?token={server.access.token}", f"{server.access.home}logs"):
            status, answer, text = ask(server, path, Cookie=cookie, **headers)
            assert (status, "Set-Cookie" in answer) == (403, False)
            assert server.access.token not in text


def test_the_address_leads_to_this_server_under_no_other_protocol(server):
    """Under the name localhost a browser first asks ::1, where another user may listen for the token."""
    assert server.url == f"http://127.0.0.1:{server.port}/?token={server.access.token}"


def test_the_token_is_not_in_what_is_printed_of_a_server(server):
    assert server.access.token not in repr(server.access)
    assert len({Access.by_token().token for _ in range(20)}) == 20


def test_without_a_token_everybody_reads_and_it_is_said(private_logs):
    command = [sys.executable, "-m", "rlm_kernel.cli", "view", str(private_logs), "--no-browser", "--port", "0"]
    with subprocess.Popen([*command, "--no-token"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as view:
        url = view.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        assert "every user and program of this machine can read these logs" in view.stderr.readline()
        with urllib.request.urlopen(f"{url}logs") as answer:
            assert SECRET in answer.read().decode()
        view.send_signal(signal.SIGINT)
        assert view.wait(20) == 0


@pytest.fixture
def opened(monkeypatch):
    """What a browser would be started with; the view ends then."""
    found = []

    def open_(address):
        file = Path(urllib.request.url2pathname(urllib.request.urlparse(address).path))
        found.append((address, file, stat.S_IMODE(file.stat().st_mode), file.read_text()))
        raise KeyboardInterrupt

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", open_)
    return found


def test_the_browser_is_started_without_the_token_on_its_command_line(private_logs, opened, capsys):
    assert main(["view", str(private_logs), "--port", "0"]) == 0
    ((address, file, mode, page),) = opened
    url = capsys.readouterr().out.strip()
    token = url.partition("token=")[2]
    assert len(token) == 43
    assert token not in address
    assert address.startswith("file:///")
    assert mode == 0o600
    assert f"0; url={url}" in page
    assert not file.exists()


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with browser() as one:
        yield one


def shot(page, name):
    if folder := os.environ.get("RLM_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_without_the_token_is_told_how_to_get_it(chromium, server, scheme):
    with chromium.new_page(color_scheme=scheme) as page:
        for path in ("", "logs", server.access.home[1:]):
            assert page.goto(f"{server.address}{path}").status == 403
            page.get_by_role("heading", name="The token is missing").wait_for()
            assert "Open the whole address that rlm view printed" in page.locator("main").inner_text()
        assert page.evaluate("getComputedStyle(document.querySelector('main')).maxWidth") != "none"
        shot(page, f"viewer-locked-{scheme}")


def test_a_browser_with_the_address_reads_the_runs_and_forgets_the_token(chromium, server):
    with chromium.new_page() as page:
        asked = []
        page.on("request", lambda request: asked.append((request.url, request.headers.get("referer"))))
        page.goto(f"{server.url}#run.jsonl")
        page.get_by_role("heading", name="Turn 1").wait_for()
        assert page.url == f"{server.address}{server.access.home[1:]}#run.jsonl"
        assert [url for url, _ in asked if "token" in url] == [server.url]
        assert not any(referer for _, referer in asked)
        assert page.evaluate("document.cookie") == ""
        page.reload()
        page.get_by_role("heading", name="Turn 1").wait_for()
        shot(page, "viewer-opened")


def test_the_file_that_is_opened_leads_a_browser_to_the_runs(chromium, private_logs, opened, tmp_path):
    log = private_logs / "run.jsonl"
    with ViewerServer(Folder(private_logs, log.name), 0) as server, chromium.new_page() as page:
        from rlm_kernel.viewer.pages import opening

        (tmp_path / "open.html").write_text(opening(server.url))
        page.goto((tmp_path / "open.html").as_uri())
        page.get_by_role("heading", name="Turn 1").wait_for()
        assert page.url == f"{server.address}{server.access.home[1:]}#run.jsonl"


def test_a_page_of_another_user_on_this_machine_gets_neither_cookie_nor_runs(chromium, server):
    """The page has another port, so its address is of the same site, and cookies know no ports."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    heard = []

    class Listening(BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append(self.headers.get("Cookie"))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Listening) as other, chromium.new_page() as page:
        Thread(target=other.serve_forever, daemon=True).start()
        page.goto(server.url)
        page.locator(".run-row").nth(1).wait_for()
        page.goto(f"http://127.0.0.1:{other.server_address[1]}/")
        read = page.evaluate(
            "async (there) => { const answer = await fetch(there).catch((error) => null); "
            "return answer && (await answer.text()); }",
            f"{server.address}{server.access.home[1:]}logs",
        )
        page.evaluate("(there) => fetch(there, {mode: 'no-cors', credentials: 'include'}).catch(() => null)", "/logs")
        other.shutdown()
    assert read is None
    assert set(heard) == {None}
    assert len(heard) >= 2
