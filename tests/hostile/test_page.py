"""What is shown in a browser or a terminal: nothing runs, nothing is loaded, and nobody else reads it."""

from __future__ import annotations

import ast
import io
import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
import webbrowser
from http.client import HTTPConnection
from pathlib import Path

import nbformat
import pytest
from fuzz import linear
from hostile.live_markup import FORMS, HOST, log_of, outputs, story
from hypothesis import given
from hypothesis import strategies as st
from laboratory import CHROMIUM, browser, lab
from markdown_it import MarkdownIt
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from recorded_runs import code, record
from selection import mostly_full
from viewer import long_logs

from rlm import RLM, ScriptedLM
from rlm_kernel.cli import main
from rlm_kernel.errors import ConfigError, RecordingError
from rlm_kernel.replay.minimise import convert
from rlm_kernel.terminal import PlainStream
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.log import signature
from rlm_kernel.trajectory.log.atomic_files import write_whole
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.trajectory.notebook.build import RunIdentity, identity_of_recording, notebook_of
from rlm_kernel.trajectory.tree import Trajectory
from rlm_kernel.types import UsageSummary
from rlm_kernel.untrusted.plain_console import PlainConsole
from rlm_kernel.viewer import pages
from rlm_kernel.viewer import server as viewer_server
from rlm_kernel.viewer.access import Access
from rlm_kernel.viewer.fallback import folded_html
from rlm_kernel.viewer.folder import Folder
from rlm_kernel.viewer.log_source import log_source
from rlm_kernel.viewer.server import ViewerServer
from rlm_magics import commands
from rlm_magics import page as magics_page
from rlm_magics.cell_run import WatchedLogger, _link
from rlm_magics.progress import Progress
from rlm_magics.result import RLMResult

pytestmark = pytest.mark.timeout(300)

ALL = "\n\n".join(FORMS.values())
EACH_FORM = mostly_full(
    FORMS, "image", "quote", "apostrophe", "script", "text elements", "markdown link", "fence", "terminal"
)
NAME = "<img src=x onerror=window.__ran=1>'\"`![x](y)"
"""A file name."""

LISTENERS = """() => [...document.querySelectorAll('*')].flatMap(
  (one) => [...one.attributes].filter((a) => /^on/i.test(a.name)).map((a) => one.outerHTML.slice(0, 200)))"""
CLICK = """() => {
  for (const one of document.querySelectorAll('details')) one.open = true;
  for (const one of document.querySelectorAll('a, button, [data-commandlinker-command]'))
    if (/^\\s*javascript:/i.test(one.href || one.formAction || '')) one.click();
  for (const one of document.querySelectorAll('main *, .jp-Notebook *, body > *'))
    one.dispatchEvent(new MouseEvent('mouseover', {bubbles: false}));
}"""


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
def started_with(monkeypatch):
    """What a browser would be started with; the view ends then."""
    found = []

    def open_(address):
        file = Path(urllib.request.url2pathname(urllib.request.urlparse(address).path))
        found.append((address, file, stat.S_IMODE(file.stat().st_mode), file.read_text()))
        raise KeyboardInterrupt

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", open_)
    return found


def test_the_browser_is_started_without_the_token_on_its_command_line(private_logs, started_with, capsys):
    assert main(["view", str(private_logs), "--port", "0"]) == 0
    ((address, file, mode, page),) = started_with
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


class Watched:
    """A page of a browser, with what it asked for."""

    def __init__(self, page):
        self.page = page
        self.asked = []
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, shown, *, static=True):
        """Show HTML, a file or an address. `static`: the page itself has no script."""
        self.page.goto("about:blank")
        self.asked.clear()
        if isinstance(shown, Path) or shown.startswith("http"):
            self.page.goto(shown.as_uri() if isinstance(shown, Path) else shown)
        else:
            self.page.set_content(shown)
        if static:
            assert self.page.evaluate(LISTENERS) == []
        return self

    def does_nothing(self):
        self.page.evaluate(CLICK)
        self.page.wait_for_timeout(20)
        assert self.page.evaluate("() => window.__ran") is None
        assert [url for url in self.asked if url.startswith(HOST)] == []
        return True


@pytest.fixture(scope="module")
def opened(chromium):
    """Opens HTML, a file or an address, each in the place of the one before."""
    page = chromium.new_page()
    # What nbconvert itself takes from elsewhere is not there, and need not be waited for.
    page.route(lambda url: url.startswith("https:"), lambda route: route.abort())
    yield Watched(page).open
    page.close()


def drawings(told, link=None):
    """Every drawing of the live view of a run, in pieces and whole, the last one with the link to its notebook."""
    progress = Progress()
    for event in told:
        progress(event)
        yield magics_page.head(progress, ["a note: " + ALL]).html()
        yield magics_page.status(progress).html()
        yield magics_page.page(progress)
    yield magics_page.page(progress, link)


def test_the_story_has_every_event_there_is():
    told = {type(event) for failed in (True, False) for event in story("x", failed=failed)}
    known = {kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)}
    assert told == known - {events.Event}


@pytest.mark.parametrize("form", EACH_FORM)
@pytest.mark.parametrize("failed", [True, False])
def test_no_field_of_an_event_runs_in_the_view_of_a_cell(opened, form, failed):
    text = FORMS[form]
    result = RLMResult(text, text, text, UsageSummary(), 1.0, notebook=f"folder/{text}.ipynb")
    seen = "".join(drawings(story(text, failed=failed), _link(result.notebook)))
    assert opened(seen).does_nothing()


def test_a_model_name_that_a_locked_kernel_asks_for_runs_nothing(opened, tmp_path):
    """The attack that was reported: `llm_query` with markup for a model, in `%%rlm` and in `%rlm trace`."""
    name = "<img src=x onerror=window.__ran=1>"
    lm = ScriptedLM([f"```repl\nllm_query('x', model={name!r})\n```", "FINAL(done)"], model="leader")
    logger = WatchedLogger(str(tmp_path))
    told = []
    logger.readers = (told.append,)
    with RLM(lm, logger=logger) as rlm:
        rlm.completion("context", "question?")
    assert name in [event.model for event in told if isinstance(event, events.SubcallStarted)]
    assert opened("".join(drawings(told))).does_nothing()
    assert opened(commands.trace(logger.log_file_path)).does_nothing()


@pytest.mark.parametrize("form", EACH_FORM)
def test_no_field_of_a_log_runs_in_a_trace_or_in_the_folded_text(opened, tmp_path, form):
    log = log_of(tmp_path, "a", story(FORMS[form], legal=True))
    assert opened(commands.trace(str(log))).does_nothing()
    assert opened(folded_html(log_source(log))).does_nothing()


@pytest.mark.filterwarnings("ignore:Your element with mimetype")
@pytest.mark.parametrize("form", EACH_FORM)
def test_no_field_of_an_event_runs_in_the_notebook_of_a_run(opened, form):
    """As a page of nbconvert that trusts all of it; a failed run, whose error says more than an answer."""
    text = FORMS[form]
    about = RunIdentity(f"run{text}".replace("\0", ""), forked_from={text: text})
    told = [*story(text)[:-1], story(text, depth=0, failed=True)[-1]]
    page, _ = HTMLExporter().from_notebook_node(notebook_of(Trajectory(told), about))
    assert opened(page, static=False).does_nothing()


@pytest.mark.parametrize("trusted", mostly_full([True, False], True))
def test_nothing_of_a_run_runs_in_jupyterlab(chromium, tmp_path, trusted):
    notebook = notebook_of(Trajectory(story(ALL)), RunIdentity("run"))
    path = tmp_path / "run.ipynb"
    nbformat.write(notebook, path)
    (tmp_path / ".settings" / "@jupyterlab" / "notebook-extension").mkdir(parents=True)
    whole = tmp_path / ".settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    whole.write_text('{"windowingMode": "none"}')
    env = {**os.environ, "HOME": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    if trusted:
        subprocess.run([sys.executable, "-m", "jupyter", "trust", str(path)], env=env, check=True, capture_output=True)
    with lab(tmp_path, env=env) as address:
        page = chromium.new_page(viewport={"width": 1200, "height": 1000})
        watched = Watched(page)
        page.goto(address.format("run.ipynb"))
        page.get_by_role("heading", name="Answer").first.wait_for(timeout=60_000)
        page.locator("summary", has_text="tools: 1").first.wait_for(timeout=60_000)
        page.wait_for_timeout(1_000)
        assert watched.does_nothing()
        if folder := os.environ.get("RLM_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"hostile-{trusted}.png")
        page.close()


@pytest.mark.parametrize("form", EACH_FORM)
def test_no_field_of_a_log_runs_in_the_viewer(opened, tmp_path, form):
    log = log_of(tmp_path, "a", story(FORMS[form], legal=True))
    output = tmp_path / "page.html"
    pages.export(log, output)
    watched = opened(output, static=False)
    watched.page.locator("#rlm-viewer").wait_for()
    unfold(watched.page)
    assert watched.does_nothing()


UNFOLD = """() => {
  const roots = [document, document.querySelector('#rlm-viewer').shadowRoot].filter(Boolean);
  let count = 0;
  for (const root of roots) for (const one of root.querySelectorAll('details:not([open]) > summary')) {
    one.click(); count += 1; }
  return count;
}"""


def unfold(page):
    for _ in range(5):
        page.wait_for_timeout(50)
        if not page.evaluate(UNFOLD):
            return


def test_no_name_of_a_file_runs_in_the_viewer(opened, tmp_path):
    log_of(tmp_path, NAME.replace("/", "_"), story("x", legal=True))
    with ViewerServer(Folder(tmp_path), 0) as server:
        watched = opened(server.url, static=False)
        watched.page.locator(".run-question").click()
        for _ in range(100):  # the policy of the page allows no function that waits in it
            if "window.__ran" in watched.page.title():
                break
            watched.page.wait_for_timeout(100)
        assert "window.__ran" in watched.page.title()
        unfold(watched.page)
        assert watched.does_nothing()


def rendered(text):
    """Markdown as renderers show it that let HTML through."""
    yield MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").render(text)
    yield markdown2html_mistune(text)


@pytest.mark.parametrize("form", EACH_FORM)
def test_nothing_of_a_run_runs_in_an_export(opened, tmp_path, form):
    text = FORMS[form]
    log = log_of(tmp_path, "a", story(text, legal=True))
    recording = read_log(log)
    notebook = notebook_of(recording.trajectory, identity_of_recording(recording))
    exported(opened, notebook, tmp_path / "out")


@pytest.mark.parametrize("form", EACH_FORM)
def test_nothing_of_a_strangers_notebook_runs_in_an_export(opened, tmp_path, form):
    exported(opened, strangers_notebook(FORMS[form]), tmp_path / NAME.replace("/", "_"))


def exported(opened, notebook, path):
    page, text = (path.with_name(f"{path.name}.{kind}") for kind in ("html", "md"))
    convert(notebook, "html", page)
    watched = opened(page)
    assert watched.does_nothing()
    assert [url for url in watched.asked if not url.startswith(("file:", "data:"))] == []
    assert watched.page.evaluate("() => document.scripts.length") == 0
    convert(notebook, "md", text)
    for html in rendered(text.read_text("utf-8")):
        assert opened(html).does_nothing()


def strangers_notebook(text):
    """A valid notebook with the text wherever one fits."""
    metadata = {"tags": ["x" + text.replace(",", "")], "rlm": {"role": text}, "title": text, text: text}
    attachments = {"x": {"image/png": text}, text: {"text/html": text}}
    mine = {
        "output_type": "display_data",
        "metadata": {"rlm": {"role": "calls"}},
        "data": {"text/html": text, "text/markdown": text},
    }
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": metadata, "source": text, "attachments": attachments},
        {"cell_type": "raw", "id": "b", "metadata": {**metadata, "raw_mimetype": "text/html"}, "source": text},
        {
            "cell_type": "code",
            "id": "c",
            "metadata": metadata,
            "source": text,
            "execution_count": 1,
            "outputs": [*outputs(text), mine, {**mine, "data": {text: text}}],
        },
        {"cell_type": "markdown", "id": "d", "metadata": {}, "source": f"- a\n\n{text}"},
    ]
    widgets = {
        "application/vnd.jupyter.widget-state+json": {
            "state": {text: text},
            text: text,
            "version_major": 2,
            "version_minor": 0,
        }
    }
    language = {"name": text, "pygments_lexer": text, "file_extension": text, "mimetype": text}
    names = {"authors": [{"name": text}], "kernelspec": {"name": text, "display_name": text}}
    about = {"title": text, "rlm": {"log": "a.jsonl"}, "widgets": widgets, "language_info": language, **names}
    return nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "metadata": about, "cells": cells})


@pytest.mark.parametrize("form", EACH_FORM)
def test_nothing_runs_in_the_markdown_of_the_magics(opened, form, tmp_path):
    text = FORMS[form]
    told = story(text)
    summary = told[-1].completion.usage_summary
    result = RLMResult(text, text, text, summary, 1.0, trajectory=f"{text}.jsonl", notebook=f"{text}.ipynb")
    name = f"{text[:40].replace('/', '_')}.jsonl".replace("\0", "")
    write_whole(tmp_path / name, b"")
    shown = [result._repr_mimebundle_()["text/markdown"], commands.usage([summary], [summary])]
    shown.append(commands.links(str(tmp_path / name)))
    for one in shown:
        for html in rendered(one):
            assert opened(html).does_nothing()


SPOKEN = "\x1b]0;owned\x07evil\x1b[2J\x9b31m\u202e"
OBEYED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ANYTHING = st.text(st.characters() | st.sampled_from("\x1b\x9b\x9d\x07\x90\r\b[];m0?h\u202e"))


def seen(folder, *arguments):
    """What a command writes to a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "rlm_kernel.cli", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm", "OPENAI_API_KEY": "x"},
    )
    os.close(follower)
    written = b""
    try:
        while piece := os.read(leader, 65536):
            written += piece
    except OSError:
        pass  # the terminal is closed: the command has ended
    finally:
        os.close(leader)
    process.wait(60)
    text = written.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    assert text
    return COLOUR.sub("", text)


COMMANDS = {
    "show, no such file": ["show", f"{SPOKEN}.jsonl"],
    "show, no log": ["show", "./"],
    "replay": ["replay", f"{SPOKEN}.jsonl"],
    "resume": ["resume", f"{SPOKEN}.jsonl"],
    "view": ["view", SPOKEN],
    "view, export": ["view", "--export", f"{SPOKEN}.pdf", f"{SPOKEN}.jsonl"],
    "diff": ["diff", f"{SPOKEN}.ipynb", f"{SPOKEN}.jsonl"],
    "export": ["export", f"{SPOKEN}.jsonl"],
    "export, no suffix": ["export", "-o", SPOKEN, f"{SPOKEN}.jsonl"],
    "attach": ["attach", SPOKEN],
    "kernel": ["kernel", "remove", "--name", SPOKEN],
    "context": ["run", "q", "--context", SPOKEN],
    "backend": ["run", "q", "--backend", SPOKEN, "--model", SPOKEN],
    "environment": ["run", "q", "--model", "m", "--environment", SPOKEN],
    "pair": ["run", "q", "--model", "m", "--backend-kwarg", SPOKEN],
    "unknown option": ["run", "q", f"--{SPOKEN}"],
    "unknown command": [SPOKEN],
    "wrong choice": ["export", "x.jsonl", "--to", SPOKEN],
    "wrong number": ["run", "q", "--max-tokens", SPOKEN],
    "with a traceback": ["show", "--debug", f"{SPOKEN}.jsonl"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_error_of_the_command_line_quotes_its_arguments_as_text(tmp_path, command):
    assert OBEYED.search(seen(tmp_path, *COMMANDS[command])) is None


def test_files_of_a_context_are_named_as_text(tmp_path):
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / f".{SPOKEN}".replace("/", "")).write_text("x")
    (folder / "text").write_text("x")
    said = seen(
        tmp_path, "run", "q", "--context", "context", "--model", "m", "--base-url", "http://127.0.0.1:1", "--quiet"
    )
    assert "skipped" in said
    assert OBEYED.search(said) is None


def test_a_recorded_run_is_shown_as_text(tmp_path):
    run = record(
        tmp_path / "logs", [code(f"print({SPOKEN!r})", f"raise ValueError({SPOKEN!r})"), f"FINAL({SPOKEN})"], SPOKEN
    )
    log = tmp_path / "logs" / f"{SPOKEN}.jsonl"
    run.log.rename(log)
    for command in (["show", str(log)], ["replay", str(log)], ["export", str(log)], ["diff", str(log), str(log)]):
        said = seen(tmp_path, *command)
        assert OBEYED.search(said) is None, command


def test_what_a_diff_shows_is_text(tmp_path):
    notebooks = []
    for number in (1, 2):
        output = {"output_type": "display_data", "data": {f"text/{SPOKEN}": [SPOKEN, f"{number}"]}, "metadata": {}}
        cell = {"cell_type": "code", "metadata": {}, "source": f"{SPOKEN}{number}", "outputs": [output]}
        content = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [{**cell, "execution_count": None}]}
        notebooks.append(tmp_path / f"{SPOKEN}{number}.ipynb")
        notebooks[-1].write_text(json.dumps(content))
    said = seen(tmp_path, "diff", *map(str, notebooks))
    assert "modified" in said
    assert OBEYED.search(said) is None


@given(ANYTHING)
def test_no_text_that_rich_draws_is_obeyed(text):
    from rich.panel import Panel
    from rich.text import Text

    file = io.StringIO()
    console = PlainConsole(file=file, force_terminal=True, width=60)
    console.print(text, Text(text, style="red"), Panel(text, title=text), style="bold")
    assert OBEYED.search(COLOUR.sub("", file.getvalue())) is None


@given(ANYTHING)
def test_a_stream_for_others_lets_only_colours_through(text):
    file = io.StringIO()
    PlainStream(file).write(f"\x1b[31m{text}\x1b[0m")
    assert OBEYED.search(COLOUR.sub("", file.getvalue())) is None


MAY_WRITE = {"terminal.py", "launcher.py", "desk.py", "live_notebook.py"}
"""`terminal` is the place; a launcher runs beside a kernel and writes one word of ours; a desk asks in a notebook; live
mode shows in a notebook what a second kernel prints, as it is."""

MAY_DRAW = {"plain_console.py"}


def test_everything_is_printed_in_one_place():
    """A `print`, a standard stream or a console elsewhere would show foreign text as it is."""
    assert [
        f"{file.relative_to(linear.ROOT)}:{node.lineno} {ast.unparse(node)[:60]}"
        for file in linear.sources()
        if file.name not in MAY_WRITE
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if writes(node) or (draws(node) and file.name not in MAY_DRAW)
    ] == []


def writes(node):
    """Whether a call writes to a standard stream, or reads with a prompt."""
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func)
    return called in ("print", "input") or re.fullmatch(
        r"sys\.(__)?std(out|err)(__)?(\.buffer)?\.write(lines)?", called
    )


def draws(node):
    """Whether a call makes a console of Rich's own."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("Console", "rich.print", "console.Console")


def shot(page, name):
    if folder := os.environ.get("RLM_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_without_the_token_is_told_how_to_get_it(chromium, server, scheme):
    with chromium.new_page(color_scheme=scheme) as page:
        for path in ("", "logs", server.access.home[1:]):
            assert page.goto(f"{server.address}{path}").status == 403
            page.get_by_role("heading", name="The token is missing").wait_for()
            assert "Open the full address that rlm view" in page.locator("main").inner_text()
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


def test_the_file_that_is_opened_leads_a_browser_to_the_runs(chromium, private_logs, started_with, tmp_path):
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


def test_a_connection_that_asks_for_nothing_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(viewer_server._Request, "timeout", 0.1)
    with (
        viewer_server.ViewerServer(Folder(tmp_path), 0) as viewer,
        socket.create_connection(("127.0.0.1", viewer.port)) as idle,
    ):
        assert idle.recv(1) == b""


def test_a_pipe_in_place_of_a_log_is_neither_shown_nor_signed(tmp_path):
    os.mkfifo(tmp_path / "run.jsonl")
    with pytest.raises(ConfigError, match="not a regular file"):
        pages.standalone_page(tmp_path / "run.jsonl")
    with pytest.raises(RecordingError, match="not a regular file"):
        signature.sign(tmp_path / "run.jsonl")
