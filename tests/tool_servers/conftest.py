from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from rlm import RLM, MCPServer, ScriptedLM
from rlm.logger import RLMLogger

PLAIN = Path(__file__).with_name("plain_server.py")


def plain_server(*flags, **options):
    """The server of `plain_server.py`, with what it does wrong."""
    return MCPServer(sys.executable, [str(PLAIN), *flags], **{"timeout": 20.0, **options})


def is_alive(pid):
    """Whether a process runs. One that has ended and was not reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def has_ended(pid, seconds=20.0):
    deadline = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_alive(pid)


class Runs:
    """Runs whose first cell is given, and what they print."""

    def __init__(self, folder):
        self.folder = folder
        self.log = None
        self.lm = None

    def rlm(self, *cells, **arguments):
        self.lm = ScriptedLM([*(f"```python\n{cell}\n```" for cell in cells), "FINAL(done)"])
        logger = RLMLogger(self.folder / "logs")
        return RLM(self.lm, logger=logger, **arguments)

    def __call__(self, server, *cells, **arguments):
        """What the cells print, stdout and stderr together."""
        with self.rlm(*cells, **{"custom_tools": {"it": server}, **arguments}) as rlm:
            completion = rlm.completion("a context", "a question")
            self.log = rlm.logger.log_file_path
        blocks = [block["result"] for turn in completion.metadata["iterations"] for block in turn["code_blocks"]]
        return "\n".join(block["stdout"] + block["stderr"] for block in blocks)

    @property
    def prompt(self):
        """What the model read first."""
        return self.lm.calls[0].messages[0]["content"]

    @property
    def record(self):
        """All files of the latest run."""
        return "\n".join(path.read_text() for path in (self.folder / "logs").iterdir() if path.suffix != ".py")


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path)


def outcomes(*expressions):
    """A cell that prints what each expression gives, or raises."""
    return f"""
for what in {json.dumps(expressions)}:
    try:
        print(what, "->", repr(eval(what)))
    except Exception as error:
        print(what, "->", type(error).__name__, error)
"""


@pytest.fixture
def pids(tmp_path):
    """The file to which servers write their ids, and how to read it."""
    path = tmp_path / "pids"
    return f"pid={path}", lambda: [int(line) for line in path.read_text().split()]
