"""What the tests of the host's bounds share: hosts that measure themselves, and what a cell needs for its attack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from places import provided

HOST = Path(__file__).with_name("bounded_host.py")
MAX_GROWTH = 400
"""Megabytes."""
PATIENCE = 2.0
"""Seconds that a host works after its deadline. `benchmarks/deadlines.py` has the seconds that pass."""

RAW = """
import glob, os, socket, struct, sys, threading
kernel = get_ipython().kernel
session, guest, iopub = kernel.session, kernel.rlm_guest, kernel.iopub_socket
MB = 1_000_000

def send(content, kind="stream", buffers=(), **parts):
    # A message of the kernel, with parts that no kernel sends.
    made = {"header": session.pack(session.msg_header(kind)), "parent": session.pack(guest.parent["header"]),
            "metadata": b"{}", "content": content, **parts}
    signed = [made[name] for name in ("header", "parent", "metadata", "content")]
    iopub.send_multipart([b"<IDS|MSG>", session.sign(signed), *signed, *buffers])

def ask(call, payload, *pictures):
    iopub_send("ask", call, [payload, *pictures])

def iopub_send(op, call, buffers):
    session.send(iopub, "comm_msg", {"comm_id": guest.comm_id, "data": {"wire": 1, "op": op, "id": call}},
                 parent=guest.parent, buffers=buffers)

def connections(channel):
    # The ends of the host's connections to a channel: 1 shell, 2 iopub, 4 control.
    for fd in range(1_000):  # Landlock closes /proc/self/fd
        try:
            end = socket.socket(fileno=os.dup(fd))
        except OSError:
            continue
        try:
            end.getpeername()
            if end.family == socket.AF_UNIX and str(end.getsockname()).endswith(f"-{channel}"):
                end.setblocking(True)
                yield end
        except OSError:
            end.close()

def write_raw(channel, *pieces):
    for end in connections(channel):
        try:
            for piece in pieces: end.sendall(piece)
        except OSError:
            pass
"""


FLOODS = {
    "prompts": (
        "import sys; sys.modules['rlm_guest.questions'].MAX_BATCH = 10**9\n"
        "while True:\n"
        "    try: llm_query_batched(['x'] * 1_000_000, model='no such')\n"
        "    except (RuntimeError, ValueError): pass"
    ),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(100) as pool: list(pool.map(llm_query, map(str, range(100_000))))"
    ),
    "prints": "while True: print('x', flush=True)",
    "updates": (
        "from IPython.display import display\n"
        "for n in range(3_000): display({'text/plain': 'a'}, raw=True, display_id='d')\n"
        "while True: display({'text/plain': 'b'}, raw=True, display_id='d', update=True)"
    ),
    "clears": "from IPython.display import clear_output\nwhile True: print('x'); clear_output(wait=True)",
}
"""Cells that never end, and give the host as much to do as they can."""


class BoundedHost:
    """A host process for the runs of one place."""

    def __init__(self, environment, options, folder):
        self._where = {"environment": environment}
        self._options = options
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, str(HOST)], stdin=pipe, stdout=pipe, text=True, cwd=folder)
        self.run("FINAL(llm_query('warm up'))")

    def run(self, *cells, delay=0.0, cell_timeout=30.0, max_timeout=60.0, **rlm):
        """Run the cells, and return the report."""
        where = {**self._options, "cell_timeout": cell_timeout, "memory": "3g"}
        rlm = {**self._where, "environment_kwargs": where, "max_timeout": max_timeout, "max_iterations": 9, **rlm}
        self._process.stdin.write(json.dumps({"cells": cells, "delay": delay, "rlm": rlm}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def hosts(request, tmp_path_factory):
    """A host for the place that the fixture is asked for, and its end."""
    environment, options = provided(request.param, request)
    options = {name: value for name, value in options.items() if name != "packages"}
    host = BoundedHost(environment, options, tmp_path_factory.mktemp("host"))
    yield host
    host.close()
