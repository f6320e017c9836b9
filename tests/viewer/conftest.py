"""A Chromium that reaches nothing but loopback, and pages whose console has to stay silent."""

from __future__ import annotations

import os
from pathlib import Path

import pypdfium2
import pytest
from laboratory import CHROMIUM, browser
from playwright.sync_api import expect
from viewer import long_logs

from rlm_kernel.viewer.folder import Folder
from rlm_kernel.viewer.server import ViewerServer

SECONDS = 60
"""How long a test waits for what must come, on a machine with much other work."""

expect.set_options(timeout=SECONDS * 1000)


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with browser() as one:
        yield one


@pytest.fixture
def open_page(chromium, served):  # the server outlives the pages
    """Opens pages; none may have written an error to its console when the test ends."""
    pages, said = [], []

    def open_one(address="about:blank", **options):
        page = chromium.new_page(**{"viewport": {"width": 1280, "height": 860}, **options})
        page.set_default_timeout(SECONDS * 1000)
        page.on("console", lambda message: message.type in ("error", "warning") and said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address)
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.close()
    assert said == []


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


@pytest.fixture
def long_log(logs):
    return long_logs.long_run(logs / "long.jsonl")


@pytest.fixture
def served(logs):
    with ViewerServer(Folder(logs), 0) as server:
        yield server.url


def printed(page, name):
    """The page on A4 paper. RLM_SCREENSHOTS names a folder for pictures of its sheets."""
    paper = pypdfium2.PdfDocument(page.pdf(format="A4"))
    if folder := os.environ.get("RLM_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        for number, sheet in enumerate(paper, 1):
            sheet.render(scale=1.5).to_pil().save(Path(folder) / f"{name}-a4-{number}.png")
    return paper


def shot(page, name):
    """RLM_SCREENSHOTS names a folder for what the pages look like."""
    if folder := os.environ.get("RLM_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png")
