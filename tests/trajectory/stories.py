"""Runs of a scripted model in real kernels, with their logs and notebooks."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from recorded_runs import notebook_beside, record_file
from trajectory.comparison import differences

from rlm import RLM, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel.trajectory.log.file_names import stem_of
from rlm_kernel.trajectory.log.reader import Recording, read_log
from rlm_kernel.types import Reply, Usage

USAGE = Usage(817, 76, cost=0.0012)
SUB_USAGE = Usage(20, 5, cost=0.0001)
CHILD = "child: "

NO_WAY_OUT = """
import socket
def connect(self, address, connect=socket.socket.connect):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith("127."):
        raise RuntimeError(f"tried to reach {address}")
    return connect(self, address)
socket.socket.connect = connect
"""


def cell(code, words="Some words."):
    return f"{words}\n```repl\n{code}\n```"


@dataclass(frozen=True)
class Story:
    """A run that is over."""

    log: Path
    response: str | None = None
    error: BaseException | None = None

    @property
    def name(self) -> str:
        return stem_of(self.log)

    @property
    def path(self) -> Path:
        return notebook_beside(self.log)

    @property
    def notebook(self):
        return nbformat.read(self.path, 4)

    @property
    def recording(self) -> Recording:
        return read_log(self.log)

    def children(self):
        return sorted((self.log.parent / self.name).glob("*.ipynb"))


def told(folder, replies, *, context="some context", question="What is it?", sub=str.upper, child=(), **kwargs):
    """Run the replies. A sub-call is answered by `sub`; a child whose context begins with `CHILD` says `child`."""

    def lead(messages):
        said = sum(message["role"] == "assistant" for message in messages)
        if messages[0]["role"] != "system":
            answer = sub(messages[-1]["content"])
            return answer if isinstance(answer, BaseException) else Reply(answer, "sub", SUB_USAGE)
        script = child if any(CHILD in message["content"] for message in messages[:2]) else replies
        reply = script[said]
        return reply if isinstance(reply, BaseException | Reply) else Reply(reply, "root", USAGE)

    logger = RLMLogger(folder)
    models = {"backend": ScriptedLM(lead, model="root"), "other_backends": [ScriptedLM(lead, model="sub")]}
    response, error = None, None
    with RLM(**models, logger=logger, **{"max_depth": 2, **kwargs}) as rlm:
        try:
            response = rlm.completion(context, question).response
        except Exception as raised:  # noqa: BLE001 (a story may end badly)
            error = raised
    return Story(record_file(logger), response, error)


def environment(folder):
    """Variables for a process that runs a notebook: no key, no network, no files of the user."""
    (folder / "guard").mkdir(exist_ok=True)
    (folder / "guard" / "sitecustomize.py").write_text(NO_WAY_OUT)
    path = os.pathsep.join([str(folder / "guard"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "HOME": str(folder), "PYTHONWARNINGS": "ignore"}


def command(folder, *arguments, cwd=None):
    """Run a command of this Python's environment."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=cwd or folder, env=environment(folder), capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def papermill(folder, notebook, *options, cwd=None):
    """What plain papermill makes of a notebook: its exit code, what it said, and the notebook."""
    out = folder / "out.ipynb"
    code, said = command(folder, "papermill", notebook, out, "--no-progress-bar", *options, cwd=cwd)
    return code, said, nbformat.read(out, 4) if out.is_file() else None


def executed(notebook, folder, **parameters):
    """What nbclient makes of a notebook with these parameters."""
    notebook.cells[1].source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    return NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(folder)}}).execute()


def equal(story, replayed):
    """Fail with the diff if a replay is not the run."""
    assert [f"cell {one.cell} {one.what}\n{one.diff}" for one in differences(story.notebook, replayed)] == []
    assert [f"cell {one.cell} {one.what}\n{one.diff}" for one in differences(story.recording, replayed)] == []
    return True


def codes(notebook):
    """The cells that the model wrote."""
    return [c for c in notebook.cells if c.metadata.get("rlm", {}).get("role") == "code"]


def text_of(notebook):
    return "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
