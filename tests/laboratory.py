"""JupyterLab over a folder, in a headless Chromium. RLM_SCREENSHOTS names a folder for what that looks like."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from rlm_kernel.clients.llamacpp.weights import cache_folder

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
IN_CHROMIUM = [
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ, reason="there is no Chromium: apt-get install chromium"
    ),
    pytest.mark.timeout(300),
]
"""The marks of a module whose tests open JupyterLab."""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
SECONDS = 60
EXTENSION = Path(__file__).parents[1] / "labextension"
SETTINGS = Path(__file__).with_name("lab-settings")


def write(path, cells, kernel="python3"):
    """A notebook that has not run."""
    notebook = new_notebook(cells=[new_code_cell(source) for source in cells])
    notebook.metadata.kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
    nbformat.write(notebook, path)


@contextmanager
def lab(folder, *options, env=None, app="jupyterlab"):
    """The address of a JupyterLab over a folder, with our extension as it is in the checkout.

    Args:
        folder: with the notebooks.
        options: of its command line.
        env: its variables, those of this process unless given.
        app: "jupyterlab", or "notebook" for Jupyter Notebook 7.
    """
    command = [sys.executable, "-m", app, "--no-browser", "--allow-root", "--ServerApp.port=0",
               "--IdentityProvider.token=x", f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", *options]  # fmt: skip
    settings = shutil.copytree(SETTINGS, folder / ".settings", dirs_exist_ok=True)  # JupyterLab may write there
    env = env or {**os.environ, "HOME": str(folder), "PYTHONWARNINGS": "ignore"}
    env["JUPYTERLAB_SETTINGS_DIR"] = str(settings)
    shutil.copytree(EXTENSION, folder / ".share" / "labextensions" / "rlm-kernel", dirs_exist_ok=True)
    env["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(folder / ".share"), env.get("JUPYTER_PATH")]))
    env.setdefault("RLM_CACHE_DIR", str(cache_folder().parent))  # the weights, which are not in this HOME
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env, cwd=folder) as server:
        try:
            said = iter(server.stderr.readline, "")
            address = next(filter(None, (re.search(r"http://\S+?:(\d+)/", line) for line in said)))
            drained = threading.Thread(target=lambda: [None for _ in said], daemon=True)
            drained.start()
            page = "lab/tree/{}?token=x&reset" if app == "jupyterlab" else "tree/{}?token=x"
            yield f"http://127.0.0.1:{address[1]}/{page}"
        finally:
            server.terminate()
            server.wait(SECONDS)
            drained.join(SECONDS)


@contextmanager
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


class Tab:
    """A notebook in JupyterLab."""

    def __init__(self, browser, address, name, **options):
        self.page = browser.new_page(**{"viewport": {"width": 1200, "height": 1000}, **options})
        self.page.set_default_timeout(SECONDS * 1000)
        self.page.goto(address.format(name))
        self.cells = self.page.locator(".jp-Notebook .jp-CodeCell")
        self.cells.first.wait_for()

    def ready(self):
        self.page.get_by_text("| Idle").wait_for()

    def run(self, number):
        """Run a cell without waiting for it."""
        self.cells.nth(number).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")

    def write(self, number, change):
        """Change the source of a cell. `change`: from the old one to the new one."""
        source = self.cells.nth(number).locator(".cm-content")
        source.click()
        old = "\n".join(source.locator(".cm-line").all_inner_texts())
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(change(old))

    def append(self, source):
        """Run a new cell at the end."""
        self.cells.last.locator(".cm-content").click()
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("b")
        self.page.keyboard.press("Enter")
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Control+Enter")

    def choose_kernel(self, name):
        """Change the kernel, as a person does."""
        self.page.locator('[data-jp-item-name="kernelName"]').click()
        self.page.locator(".jp-Dialog select").select_option(label=name)
        self.page.locator(".jp-Dialog .jp-mod-accept").click()
        self.page.locator(".jp-Dialog").wait_for(state="detached")
        self.ready()

    def run_all(self):
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()

    def output(self, number):
        return self.cells.nth(number).locator(".jp-OutputArea-output")

    def text(self, number):
        return "\n".join(self.output(number).all_inner_texts())

    def says(self, number, words):
        """Wait until the output of a cell holds some words."""
        self.cells.nth(number).locator(".jp-OutputArea").get_by_text(words).filter(visible=True).first.wait_for()

    def save(self, path, condition):
        """Save, and wait until the file is as it should be."""
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("Control+s")
        wait_until(lambda: (saved := read(path)) and condition(saved))

    def shot(self, name):
        shot(self.page, name)


def shot(page, name):
    folder = os.environ.get("RLM_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png")


def read(path):
    """A notebook, or None while JupyterLab writes it."""
    try:
        return nbformat.read(path, 4)
    except nbformat.reader.NotJSONError:
        return None


def wait_until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
