from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass, field

import pytest
from jupyter_client.manager import KernelManager

from rlm_kernel.provisioners.local_base import private_directory

SECONDS = 60
MODELS = """\
%load_ext rlm_magics
from rlm import ScriptedLM, LMError
def leader(*replies, delay=0):
    turn = lambda messages: sum(m["role"] == "assistant" for m in messages)
    return ScriptedLM(lambda messages: replies[turn(messages)], model="leader", delay=delay)
def cell(code):
    return f"Some thoughts.\\n```repl\\n{code}\\n```"
reader = ScriptedLM(lambda messages: messages[-1]["content"].upper(), model="reader")
text = "words " * 100
"""


@dataclass
class Ran:
    """What a cell showed: messages in order, and whether it ended well."""

    messages: list = field(default_factory=list)
    status: str = ""
    seconds: float = 0.0

    def of(self, *kinds):
        return [content for kind, content in self.messages if kind in kinds]

    @property
    def printed(self):
        return "".join(content["text"] for content in self.of("stream"))

    @property
    def result(self):
        return next((content["data"] for content in self.of("execute_result")), None)

    @property
    def views(self):
        """The HTML of the view, drawing by drawing."""
        shown = self.of("display_data", "update_display_data")
        return [html for content in shown if (html := content["data"].get("text/html"))]

    @property
    def left(self):
        """What stays in the notebook: displays as they were updated last."""
        last = {}
        for content in self.of("display_data", "update_display_data"):
            last[content["transient"].get("display_id", len(last))] = content["data"]
        return [*last.values(), *([self.result] if self.result else [])]

    @property
    def html(self):
        """The HTML that stays in the notebook."""
        return "".join(data.get("text/html", "") for data in self.left)

    @property
    def error(self):
        """The error as the notebook shows it, or None."""
        raised = [re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(c["traceback"])) for c in self.of("error")]
        said = [line for line in self.printed.splitlines() if line.startswith("UsageError")]
        return next(iter([*raised, *said]), None)


class Notebook:
    """A real kernel, driven as a front end does."""

    def __init__(self, cwd, kernel="python3", **environment):
        self.folder = private_directory()
        connection = {"connection_file": str(self.folder / "kernel.json"), "ip": str(self.folder / "k")}
        self.manager = KernelManager(kernel_name=kernel, transport="ipc", **connection)
        self.manager.start_kernel(cwd=str(cwd), env={**os.environ, **environment})
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=SECONDS)

    def run(self, code, when=None, then=None):
        """Run a cell; `then()` is called once when a message comes for which `when(content)` holds."""
        ran, started, request = Ran(), time.perf_counter(), self.client.execute(code)
        while True:
            message = self.client.get_iopub_msg(timeout=SECONDS)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                break
            ran.messages.append((kind, content))
            if when is not None and when(content):
                when, started = None, time.perf_counter()
                then()
        ran.status = self._reply_to(request)["status"]
        ran.seconds = time.perf_counter() - started
        return ran

    def _reply_to(self, request):
        """The reply to a request; a client that had to wait for a kernel has asked several times who it is."""
        while (reply := self.client.get_shell_msg(timeout=SECONDS))["parent_header"].get("msg_id") != request:
            pass
        return reply["content"]

    def value(self, expression):
        """What a cell with this expression shows."""
        return self.run(expression).result["text/plain"]

    def complete(self, code):
        reply = self.client.complete(code, reply=True, timeout=SECONDS)["content"]
        return reply["matches"]

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("person")


@pytest.fixture(scope="module")
def notebook(folder):
    """A notebook with the extension and scripted models."""
    notebook = Notebook(folder, IPYTHONDIR=str(folder / "ipython"))
    ran = notebook.run(MODELS)
    assert ran.status == "ok", ran.error
    yield notebook
    notebook.close()


@pytest.fixture
def started(tmp_path):
    """Starts further kernels, and ends them."""
    notebooks = []

    def start(*arguments, **environment):
        notebooks.append(Notebook(tmp_path, *arguments, **environment))
        return notebooks[-1]

    yield start
    for notebook in notebooks:
        notebook.close()
