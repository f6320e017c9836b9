"""The reference servers of MCP, from npm and PyPI: `.ci/setup` and `.ci/full` install them."""

from __future__ import annotations

import asyncio
import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from rlm import MCPServer
from rlm_kernel.replay.replayer import replay

from .conftest import outcomes

CACHE = Path(__file__).parents[2] / ".cache"
BIN = CACHE / "mcp-servers" / "node_modules" / ".bin"
FETCH = CACHE / "mcp-fetch" / "bin" / "mcp-server-fetch"


def installed(path):
    if not path.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{path.name} is not installed: .ci/full does it")
    return str(path)


def replays_without_server(log, moved):
    """Whether a run replays after its server was taken away."""
    aside = moved.with_name(moved.name + ".aside")
    moved.rename(aside)
    try:
        return "equal to the recorded run" in str(asyncio.run(asyncio.to_thread(replay, log)))
    finally:
        aside.rename(moved)


def test_the_file_system_server_reads_and_writes_within_its_folder(runs, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("some text")
    server = MCPServer(installed(BIN / "mcp-server-filesystem"), [str(folder)])
    path = str(folder / "a.txt")
    cell = outcomes(
        f"it.read_text_file({path!r})",
        f"it.write_file({str(folder / 'b.txt')!r}, 'new')",
        "it.read_text_file('/etc/passwd')",
    )
    shown = runs(server, cell + f"print(await it.alist_directory({str(folder)!r}))\nhelp(it.edit_file)", approve=True)
    assert "{'content': 'some text'}" in shown
    assert (folder / "b.txt").read_text() == "new"
    assert "ToolError Access denied" in shown
    assert "[FILE] a.txt" in shown
    assert "(a dict has oldText: str, newText: str)" in shown
    assert replays_without_server(runs.log, folder)


EVERYTHING = (
    outcomes(
        "it.echo('hi')",
        "it.get_sum(2, 3)",
        "it.get_structured_content('Chicago')",
        "it.get_tiny_image()",
        "it.get_resource_reference('Text', 1)",
        "len(it.resources()) > 3",
        "it.read_resource(it.resources()[0]['uri'])[:1]",
        "it.trigger_long_running_operation(1, 2)",
    )
    + "import asyncio\nprint(await asyncio.gather(*(it.aecho(str(n)) for n in range(5))))"
)


def check_everything(shown):
    for text in ("Echo: hi", "is 5", "'temperature':", "Image object", "len(it.resources()) > 3 -> True", "completed"):
        assert text in shown
    assert "['Echo: 0', 'Echo: 1', 'Echo: 2', 'Echo: 3', 'Echo: 4']" in shown
    assert "Error" not in shown


@pytest.mark.full
def test_the_everything_server_over_its_pipes(runs):
    server = MCPServer(installed(BIN / "mcp-server-everything"), ["stdio"])
    check_everything(runs(server, EVERYTHING, approve=True))
    assert replays_without_server(runs.log, BIN / "mcp-server-everything")


@pytest.mark.full
def test_the_everything_server_over_http(runs):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = installed(BIN / "mcp-server-everything")
    with subprocess.Popen(
        [program, "streamableHttp"], env={"PORT": str(port), "PATH": str(Path(shutil.which("node")).parent)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        try:
            wait_for(port)
            check_everything(runs(MCPServer(url=f"http://127.0.0.1:{port}/mcp"), EVERYTHING, approve=True))
        finally:
            server.kill()
    assert "equal to the recorded run" in str(asyncio.run(asyncio.to_thread(replay, runs.log)))


def wait_for(port):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(404 if self.path == "/robots.txt" else 200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html><body><h1>A page</h1><p>with some words</p></body></html>")

    def log_message(self, *_):
        pass


@pytest.mark.full
def test_the_fetch_server_reads_a_page_on_loopback(runs):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{pages.server_port}/page"
        shown = runs(MCPServer(installed(FETCH), timeout=60), f"print(it.fetch({url!r}))", approve=True)
        pages.shutdown()
    assert "with some words" in shown
    assert "equal to the recorded run" in str(asyncio.run(asyncio.to_thread(replay, runs.log)))
