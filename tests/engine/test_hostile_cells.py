"""What the worst cells do: end in a clear result within their deadline, leave the state whole and the host small.

Each runs in a host process of its own (`hostile_host.py`), which measures itself. Between a cell that makes a variable
and one that reads it stands the hostile one; where that breaks what comes next, a victim follows it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from selection import mostly_full

HOST = Path(__file__).parent / "hostile_host.py"
MAX_GROWTH = 300
"""Megabytes."""

FIRST = "kept = 41\nanswer['content'] = 'so far'"
LAST = "FINAL([kept + 1, len(context), callable(llm_query), type(answer).__name__])"
WHOLE = "[42, 9, True, 'dict']"

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="measures with /proc"), pytest.mark.slow]


class Seen:
    """The report of a host, and the mark that every process below it carried."""

    def __init__(self, report, mark):
        self.report, self.mark = report, mark
        self.told = report["told"]

    @property
    def survivors(self):
        return [process.pid for process in psutil.process_iter() if self.mark in environment_of(process)]


def environment_of(process):
    try:
        return Path(f"/proc/{process.pid}/environ").read_text("utf-8", "replace")
    except (OSError, psutil.Error):
        return ""


@pytest.fixture(params=mostly_full(["plain", "bwrap", "landlock"], "plain"))
def seen(tmp_path, request):
    """Run cells in a host of their own, with `--full` also in each sandbox."""
    sandbox = "" if request.param == "plain" else request.param
    if sandbox:
        request.getfixturevalue(sandbox)

    def run_in_a_host(*cells, cell_timeout=3.0, max_timeout=60.0):
        mark = f"mark-{uuid4().hex}"
        where = {"cell_timeout": cell_timeout, "memory": "2g", "env": {"MARK": mark}}
        where |= {"mounts": {str(tmp_path): f"{tmp_path}:rw"}} if sandbox else {}
        job = {
            "cells": cells,
            "context": "x" * 9,
            "rlm": {"environment_kwargs": where, "max_timeout": max_timeout},
        }
        done = subprocess.run(
            [sys.executable, str(HOST)],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "RLM_SANDBOX": sandbox},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return Seen(json.loads(done.stdout), mark)

    return run_in_a_host


@pytest.fixture
def survive(seen):
    """Run a hostile cell between others. Returns what the model was told of it; all else is as if it had not been."""

    def around(code, *victims, **options):
        what = seen(FIRST, code, *victims, LAST, **options)
        assert what.report.get("answer") == WHOLE
        assert what.report["grown"] < MAX_GROWTH
        assert what.survivors == []
        return what.told[1]

    return around


TOO_LONG = "it took too long"
STILL_THERE = "Still there: `kept`"


# -- cells that do not end


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import ctypes; ctypes.CDLL(None).sleep(600)",
        "import asyncio; await asyncio.sleep(600)",
        (
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(32) as pool: list(pool.map(llm_query, map(str, range(32))))"
        ),
        "llm_query_batched(['x' * 100_000] * 300)",
    ],
    ids=["a loop", "a blocked C call", "an await", "32 threads that wait", "a large batch"],
)
def test_a_cell_without_end_is_interrupted(survive, code):
    told = survive(code, cell_timeout=1)
    assert TOO_LONG in told
    assert "restarted" not in told


@pytest.mark.parametrize(
    "code",
    [
        "import ctypes; ctypes.PyDLL(None).sleep(600)",
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(1)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    ],
    ids=["a C call that holds the interpreter", "no interrupts", "stopped"],
)
def test_a_cell_that_cannot_be_interrupted_is_killed(survive, code):
    told = survive(code, cell_timeout=1)
    assert TOO_LONG in told
    assert STILL_THERE in told


@pytest.mark.parametrize("code", ["while True: pass", "import ctypes; ctypes.PyDLL(None).sleep(600)"])
def test_without_a_limit_for_the_cell_the_time_of_the_run_is_one(seen, code, request):
    what = seen(FIRST, code, cell_timeout=None, max_timeout=2 if "plain" in request.node.name else 6)
    assert (what.report["error"], what.report["draft"]) == ("TimeoutExceededError", "so far")
    assert what.survivors == []


# -- cells that end their kernel


@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(1)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os, signal, time; os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)",
        "import ctypes; ctypes.string_at(0)",
        "import os; os.closerange(0, 21)",
        "import os; os.closerange(0, 4096)",
    ],
    ids=["_exit", "SIGKILL", "SIGKILL to the watchdog", "a crash", "no descriptors to 20", "no descriptors"],
)
def test_a_cell_that_ends_its_kernel_costs_nothing_else(survive, code, request):
    told = survive(code)
    if "getppid" in code and "plain" not in request.node.name:  # in a sandbox its watchdog is out of reach
        assert "PermissionError" in told or TOO_LONG in told
        return
    assert "The kernel died while it ran this cell." in told
    assert STILL_THERE in told


@pytest.mark.parametrize("code", ["exit()", "quit()", "raise SystemExit", "import sys; sys.exit(3)"])
def test_leaving_is_not_possible(survive, code):
    assert "restarted" not in survive(code)


def test_a_watchdog_that_was_stopped_still_ends_everything(survive):
    code = (
        "import os, signal, subprocess\n"
        "for own_session in (False, True): subprocess.Popen(['sleep', '600'], start_new_session=own_session)\n"
        "os.kill(os.getppid(), signal.SIGSTOP)"
    )
    assert "restarted" not in survive(code)


# -- cells that take too much


@pytest.mark.parametrize(
    "code",
    ["data = bytearray(3 * 2**30)", "pieces = []\nwhile True: pieces.append(bytearray(10**8))"],
    ids=["at once", "bit by bit"],
)
def test_too_large_an_allocation_is_a_memory_error(survive, code):
    told = survive(code, cell_timeout=20)
    assert "MemoryError" in told
    assert "restarted" not in told


def test_five_hundred_processes_are_gone_with_the_run(survive):
    code = (
        "import subprocess\n"
        "left = [subprocess.Popen(['sleep', '600'], start_new_session=bool(i % 2)) for i in range(500)]\n"
        "len(left)"
    )
    assert "500" in survive(code, cell_timeout=30)


@pytest.mark.parametrize("code", ["", "\nif os.getpid() != first: time.sleep(600)"], ids=["going on", "waiting"])
def test_a_hundred_copies_of_the_kernel_are_gone_with_the_run(survive, code):
    forks = "import os, time\nfirst = os.getpid()\nfor _ in range(7): os.fork()"
    survive(forks + code, cell_timeout=20)


def test_a_million_lines_leave_the_host_small(survive):
    told = survive("for i in range(1_000_000): print(i)", cell_timeout=60)
    assert "0\n1\n2\n" in told
    assert "999999" in told
    assert "characters left out" in told


HUGE = "from IPython.display import display\nhuge = 'x' * 50_000_000\n"


@pytest.mark.parametrize(
    "code",
    ["print(huge)", "huge", "display({'text/plain': huge}, raw=True)", "print('begin', huge, huge, 'end')"],
    ids=["printed", "the value", "a display", "a hundred megabytes"],
)
def test_fifty_megabytes_at_once_are_shown_by_their_ends(survive, code):
    told = survive(HUGE + code, cell_timeout=30)
    assert "xxxxxxxx" in told
    assert "left out" in told


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("display({'application/json': [[]] * 16_000_000}, raw=True)", "too many to be read"),
        ("raise ValueError(huge)", "too many to be read"),
        ("display({'text/html': huge}, raw=True)", "characters of output were not kept"),
        ("answer['content'] = huge; answer['content'] = ''", "no output"),
        ("for i in range(100_000): globals()[f'v{i}'] = i", "v1 (int)"),
    ],
    ids=["small pieces", "raised", "a display without a text", "a draft", "variables"],
)
def test_what_is_too_large_to_be_shown_is_said(survive, code, words):
    assert words in survive(HUGE + code, cell_timeout=30)


# -- cells that reach for what the kernel is made of


@pytest.mark.parametrize("name", ["context", "llm_query", "FINAL", "answer"])
@pytest.mark.parametrize("code", ["del {}", "{} = None"])
def test_names_that_were_taken_away_are_put_back(survive, name, code):
    assert f"`{name}` belongs to the notebook" in survive(code.format(name))


KERNEL = "kernel = get_ipython().kernel\n"


@pytest.mark.parametrize(
    "code",
    [
        "kernel.rlm_guest = None",
        "kernel.rlm_guest.ours.clear()",
        "kernel.control_stream.on_recv(None)",
        "kernel.comm_manager = None",
        "import os; os.write(1, bytes(range(256)) * 4096); os.write(2, b'\\xff' * 100_000)",
        (
            "for _ in range(1000):\n"
            "    kernel.iopub_socket.send(b'garbage')\n"
            "    kernel.iopub_socket.send_multipart([b'<IDS|MSG>', b'', b'{', b'{}', b'{}', b'{}'])"
        ),
        (
            "for _ in range(1000):\n"
            "    kernel.rlm_guest.send('ask', 'x', b'garbage')\n"
            "    kernel.rlm_guest.send('report', '', b'{}')\n"
            "    kernel.rlm_guest.send('nonsense', '1')"
        ),
        (
            "import glob, os, socket\n"
            "for path in glob.glob(os.path.dirname(os.getcwd()) + '/k-*'):\n"
            "    with socket.socket(socket.AF_UNIX) as end: end.connect(path); end.send(os.urandom(100_000))"
        ),
        "import glob, os\nfor path in glob.glob(os.path.dirname(os.getcwd()) + '/k*'): os.unlink(path)",
        (
            "send, here, cell = kernel.session.send, kernel.iopub_socket, kernel.get_parent('shell')\n"
            "sent = send(here, 'status', {'execution_state': 'idle'}, cell), send(here, 'stream', {'name': 5}, cell)"
        ),
        (
            "session, deep = kernel.session, b'[' * 200_000 + b']' * 200_000\n"
            "parts = [session.pack(session.msg_header('stream')), b'{}', b'{}', deep]\n"
            "sent = kernel.iopub_socket.send_multipart([b'<IDS|MSG>', session.sign(parts), *parts])"
        ),
    ],
    ids=[
        *[
            "no guest",
            "no names",
            "no control",
            "no comms",
            "bytes to stdout",
            "garbage on IOPub",
            "garbage on the wire",
        ],
        *["garbage to the sockets", "no sockets", "forged states", "a message nested too deeply"],
    ],
)
def test_what_does_not_break_the_kernel_changes_nothing(survive, code):
    assert "restarted" not in survive(KERNEL + code)


@pytest.mark.parametrize(
    "code",
    [
        "kernel.iopub_socket = None",
        "kernel.session = None",
        "get_ipython().events.callbacks.clear()",
        "kernel.shell_handlers.clear()",
    ],
    ids=["no IOPub", "no session", "no hooks", "no handlers"],
)
def test_what_a_cell_takes_from_its_kernel_is_put_back(survive, code):
    told = survive(KERNEL + code, cell_timeout=5)
    assert "it was put back" in told
    assert "restarted" not in told


def test_a_cell_that_breaks_the_kernel_for_the_next_one_is_left_out_when_the_state_is_made_again(seen):
    code = "import asyncio; asyncio.get_event_loop().stop()"
    what = seen(FIRST, f"{KERNEL}broke_it = 1\n{code}", "1 + 1", LAST, cell_timeout=1)
    assert what.report["answer"] == WHOLE
    assert STILL_THERE in what.told[1] + what.told[2]
    # A loop that stops at once may end the kernel before the cell is reported, which then has set nothing.
    assert "Lost: `kernel`, `broke_it`" in what.told[2] or "died while it ran this cell" in what.told[1]


def test_a_cell_that_ends_the_kernel_only_when_it_runs_again_takes_nothing_with_it(seen, tmp_path):
    code = (
        f"import os, pathlib\nmark = pathlib.Path({str(tmp_path)!r}, 'ran')\n"
        "if mark.exists(): os._exit(1)\n"
        "mark.touch()"
    )
    what = seen(FIRST, code, "later = 1", "os._exit(1)", LAST)
    assert what.report["answer"] == WHOLE
    assert "Still there: `kept`, `later`" in what.told[3]
    assert "Lost: `mark`" in what.told[3]
