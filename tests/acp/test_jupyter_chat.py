"""JupyterLab's chat in Chromium: the persona of Jupyter AI, in an environment of its own that knows nothing of ours."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from laboratory import CHROMIUM, SECONDS, browser

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".cache/jupyter-ai/bin/python"

pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not PYTHON.exists(), reason=".ci/full installs Jupyter AI into .cache/jupyter-ai"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]


def cell(code):
    return f"```repl\n{code}\n```"


def notebook(path, source):
    cells = [{"cell_type": "markdown", "metadata": {}, "source": source, "id": "a"}]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


@contextlib.contextmanager
def jupyter(folder, **variables):
    """The address of a JupyterLab with Jupyter AI over a folder."""
    options = ["--no-browser", "--allow-root", "--ServerApp.port=0", "--IdentityProvider.token=x"]
    options += [f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None"]
    env = {**os.environ, "HOME": str(folder.parent), "PYTHONWARNINGS": "ignore", **variables}
    command = [str(PYTHON), "-m", "jupyterlab", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env, cwd=folder) as server:
        try:
            said = iter(server.stderr.readline, "")
            address = next(filter(None, (re.search(r"http://\S+?:(\d+)/", line) for line in said)))
            threading.Thread(target=lambda: [None for _ in said], daemon=True).start()
            yield f"http://127.0.0.1:{address[1]}/lab/tree/{{}}?token=x&reset"
        finally:
            server.terminate()
            server.wait(SECONDS)


def picture(page, name):
    if folder := os.environ.get("RLM_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder, f"{name}.png"))


def test_the_persona_imports_nothing_of_ours():
    code = "import rlm_jupyter_ai, sys; print([name for name in sys.modules if name in ('rlm', 'rlm_kernel')])"
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    missing = subprocess.run([PYTHON, "-c", "import rlm_kernel"], capture_output=True, check=False)
    assert missing.returncode != 0


def test_a_question_about_a_notebook_an_answer_a_notebook_of_the_run_and_stop(provider, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    notebook(folder / "analysis.ipynb", "# Sales of the year\n\nThe total is 42.")
    (folder / "help.chat").write_text("{}")
    rlm = f"{sys.executable} -m rlm_kernel.cli acp --model loopback-model --log-dir {tmp_path / 'runs'}"
    variables = {"OPENAI_API_KEY": "loopback-key", "OPENAI_BASE_URL": provider.backend_kwargs["base_url"]}
    provider.script = [
        "I read the notebook first.\n" + cell("for name, text in context.items():\n    print(name, text)"),
        "FINAL(The notebook is about **sales**; its total is 42.)",
        cell("for second in range(600):\n    print('waiting', second)\n    __import__('time').sleep(1)"),
        "FINAL(I am back.)",
    ]
    with jupyter(folder, RLM_ACP_COMMAND=rlm, **variables) as address, browser() as chromium:
        page = chromium.new_page(viewport={"width": 1200, "height": 820})
        page.set_default_timeout(SECONDS * 1000)
        page.goto(address.format("help.chat"))
        page.get_by_role("button", name="No", exact=True).click()  # news of Jupyter
        page.get_by_role("button", name="loopback-model").wait_for()

        def send(text):
            page.get_by_placeholder("Type a chat message").click()
            page.keyboard.type(text, delay=30)
            page.keyboard.press("Enter")

        def send_with_notebook(text):
            page.get_by_placeholder("Type a chat message").click()
            page.keyboard.type(f"{text} @file:ana", delay=30)
            page.get_by_role("option", name=re.compile("analysis.ipynb")).first.wait_for()
            page.keyboard.press("Enter")
            page.wait_for_timeout(500)  # the menu closes
            page.keyboard.press("Enter")

        def answered():
            page.get_by_text("is typing").wait_for(state="hidden")

        send_with_notebook("What is this notebook about?")
        page.get_by_text("its total is 42").wait_for()
        assert "Sales of the year" in provider.requests[1].said
        picture(page, "jupyter-chat")

        answered()
        send_with_notebook("/notebook")
        page.get_by_text("The notebook of this conversation").wait_for()
        assert "its total is 42" in (folder / "analysis-rlm.ipynb").read_text()

        answered()
        send("Wait a while.")
        stop = page.get_by_role("button", name=re.compile("stop", re.IGNORECASE))
        page.get_by_text("for second in range(600)").wait_for()
        picture(page, "jupyter-chat-running")
        stop.click()
        answered()
        send("Are you there?")
        page.get_by_text("I am back.").wait_for()
        picture(page, "jupyter-chat-stopped")
