"""Whether a long run stays flat: time of a turn, lines of the log a second and memory of the host, early and late.

    python benchmarks/growth.py [--turns 1150] [--queries 20] [--output 100000] [--json FILE]
    python benchmarks/growth.py --context 1000  # only one run over a file of 1 GB, which the kernel reads

With these sizes a run has 23,000 sub-calls, 115 MB of output and a log of 200 MB. Then the whole log is read: by
the viewer's server, a process of its own, and for `completion.metadata`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rlm import RLM
from rlm.logger import RLMLogger
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.trajectory.log.file_names import NOTEBOOK, RECORD, TURNS, file_beside
from rlm_kernel.types import Message, Reply, RLMChatCompletion, Usage
from rlm_kernel.viewer.folder import Folder
from rlm_kernel.viewer.server import ViewerServer

WINDOW = 20
LAST_BYTES = 3_000_000

Row = dict[str, float]


@dataclass(frozen=True)
class Seen:
    """What the model saw of the host at its call: seconds, MB of memory (RSS), and the size of the log in MB."""

    time: float
    memory: float
    log: float


def main() -> None:
    """Run once and print."""
    parser = argparse.ArgumentParser(description="Measure whether a long run stays flat.")
    parser.add_argument("--turns", type=int, default=1150, help="turns (1,150)")
    parser.add_argument("--queries", type=int, default=20, help="sub-calls of a turn (20)")
    parser.add_argument("--output", type=int, default=100_000, help="bytes of output of a turn (100,000)")
    parser.add_argument("--context", type=int, metavar="MB", help="run once over a file of this size instead")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve(options.serve)
        return
    found = {"context": _measure_context(options.context)} if options.context else _measure_run(options)
    found["about"] = {"load": os.getloadavg()[0]}
    for name, row in found.items():
        print(f"{name:9}", "   ".join(f"{what} {value:,.1f}" for what, value in row.items()))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def _measure_run(options: argparse.Namespace) -> dict[str, Row]:
    cell = f"_ = llm_query_batched(['a'] * {options.queries})\nprint('x' * {options.output})"
    seen: list[Seen] = []
    with tempfile.TemporaryDirectory() as folder:
        logger = RLMLogger(folder)

        def reply(messages: Sequence[Message]) -> Reply:
            model.calls.clear()
            if messages[0]["role"] != "system":
                return Reply("42", "scripted", Usage(1, 1))
            log = file_beside(Path(str(logger.log_file_path)), RECORD)
            seen.append(Seen(time.monotonic(), _resident("self"), log.stat().st_size / 1e6))
            text = f"```repl\n{cell}\n```" if len(seen) < options.turns else "FINAL(42)"
            return Reply(text, "scripted", Usage(1, 1))  # not a str, of which the script counts the whole history

        model = ScriptedLM(reply)
        with RLM(model, logger=logger, max_iterations=options.turns + 1) as rlm:
            completion = rlm.completion("a text", "How many?")
        assert completion.response == "42"
        log = file_beside(Path(str(logger.log_file_path)), RECORD)
        return {**_turns(seen), **_files(log), "viewer": _view(log), "metadata": _read_metadata(completion)}


def _turns(seen: Sequence[Seen]) -> dict[str, Row]:
    """Turns after a tenth of the run, and the last ones."""
    size, first = min(WINDOW, len(seen) // 4), len(seen) // 10
    rows = {}
    for name, part in (("early", seen[first : first + size]), ("late", seen[-size:])):
        turn = statistics.median(after.time - before.time for before, after in pairwise(part))
        rate = (part[-1].log - part[0].log) / (part[-1].time - part[0].time)
        rows[name] = {"turn_ms": 1000 * turn, "host_mb": part[-1].memory, "log_mb_per_s": rate, "log_mb": part[-1].log}
    return rows


def _files(log: Path) -> dict[str, Row]:
    with log.open("rb") as lines:
        count = sum(1 for _ in lines)
    sizes = {f"{end[1:]}_mb": file_beside(log, end).stat().st_size / 1e6 for end in (RECORD, TURNS, NOTEBOOK)}
    return {"files": {**sizes, "log_lines": float(count)}, "end": {"host_mb": _resident("self")}}


def _view(log: Path) -> Row:
    """How long the viewer's server takes for the list of runs, the end of the log and the whole, and its memory."""
    row = {}
    with _server(log.parent) as (pid, ask):
        before, size = _resident(pid), log.stat().st_size
        for name, path in (
            ("list_ms", "logs"),
            ("last_3_mb_ms", f"logs/{log.name}?from={size - LAST_BYTES}"),
            ("whole_ms", f"logs/{log.name}"),
        ):
            began = time.monotonic()
            with urllib.request.urlopen(ask(path)) as answer:
                while answer.read(1 << 20):
                    pass
            row[name] = 1000 * (time.monotonic() - began)
        return {**row, "server_mb_before": before, "server_mb": _resident(pid)}


@contextmanager
def _server(folder: Path) -> Iterator[tuple[str, Any]]:
    """The viewer of a folder as a process: its id, and what makes a request of a path."""
    command = [sys.executable, __file__, "--serve", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout, "a pipe"
        address, cookie = json.loads(process.stdout.readline())
        try:
            yield str(process.pid), lambda path: urllib.request.Request(address + path, headers={"Cookie": cookie})
        finally:
            process.terminate()


def _serve(folder: Path) -> None:
    with ViewerServer(Folder(folder), 0) as server:
        cookie = server.access.cookie(server.port).partition(";")[0]
        print(json.dumps([server.address.rstrip("/") + server.access.home, cookie]), flush=True)
        sys.stdin.read()


def _read_metadata(completion: RLMChatCompletion) -> Row:
    """How long `completion.metadata` of a long run takes, and the host's memory after it."""
    assert completion.metadata is not None, "there is a logger"
    began = time.monotonic()
    turns = len(completion.metadata["iterations"])
    return {"turns": float(turns), "seconds": time.monotonic() - began, "host_mb": _resident("self")}


def _measure_context(megabytes: int) -> Row:
    """Run once over a large file, and return the time and the host's memory before and at most."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "context.txt")
        with path.open("wb") as file:
            for _ in range(megabytes):
                file.write(b"a line of text, 25 bytes\n" * 40_000)
        before, began = _resident("self"), time.monotonic()
        with RLM(ScriptedLM("```repl\nFINAL(len(context))\n```"), logger=RLMLogger(folder)) as rlm:
            answer = rlm.completion(path, "How long is it?").response
        seconds, most = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"characters": float(answer), "seconds": seconds, "host_mb_before": before, "host_mb_most": most}


def _resident(pid: str) -> float:
    """The memory of a process in MB (RSS)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


if __name__ == "__main__":
    main()
