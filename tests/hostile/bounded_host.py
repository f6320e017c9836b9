"""A host of its own for the runs of a test, so that its memory can be measured: a line of JSON in, one out.

A job is the arguments `rlm` of an RLM, and `cells` that a scripted model writes one by one, the last giving the answer.
Memory is counted from after an ordinary run in the same place, late work from the run's deadline on (CPU seconds).
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
from pathlib import Path

from rlm import RLM, Reply, RLMError, ScriptedLM, Usage


def megabytes(field):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024


def model(cells):
    return ScriptedLM([f"```repl\n{cell}\n```" for cell in cells])


class Sub:
    """Answers sub-calls, and keeps none of them."""

    model, backend, context_window = "sub", "scripted", None

    def __init__(self, delay):
        self.delay, self.asked = delay, 0

    async def complete(self, messages, **_):
        self.asked += 1
        await asyncio.sleep(self.delay)
        return Reply("short", self.model, Usage(1, 1))


def run(job):
    lm, outcome = model(job["cells"]), {}
    sub = Sub(job["delay"])
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    started, worked = time.monotonic(), []
    deadline = threading.Timer(job["rlm"]["max_timeout"], lambda: worked.append(time.process_time()))
    deadline.start()
    try:
        rlm = RLM(lm, other_backends=[sub], custom_tools={"tool": len}, **job["rlm"])
        outcome["answer"] = rlm.completion("a context").response
    except RLMError as error:
        outcome["error"] = type(error).__name__
    deadline.cancel()
    outcome["seconds"] = time.monotonic() - started
    outcome["late_work"] = time.process_time() - worked[0] if worked else 0.0
    outcome["peak"] = megabytes("VmHWM")
    outcome["told"] = [call.prompt for call in lm.calls[1:]]
    outcome["asked"] = sub.asked
    return outcome


def main():
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    baseline = None
    for line in sys.stdin:
        outcome = run(json.loads(line))
        gc.collect()
        baseline = baseline or megabytes("VmRSS")
        outcome["grown"] = outcome["peak"] - baseline
        print(json.dumps(outcome), file=reports, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
