"""A host of its own for one run, so that its memory and what it leaves behind can be measured: a job in, a report out.

The job is JSON on stdin: `cells` that a scripted model writes one by one, the last giving the answer, and the arguments
`rlm` of the RLM. The report is JSON on stdout.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from rlm import RLM, RLMError, ScriptedLM


def megabytes(field):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024


def model(cells):
    return ScriptedLM([f"```repl\n{cell}\n```" for cell in cells])


def main():
    job = json.load(sys.stdin)
    never = ScriptedLM(lambda _: "late", model="sub", delay=3600)
    RLM(model(["FINAL(1)"])).completion("warm up")
    lm, outcome = model(job["cells"]), {}
    baseline = megabytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    started = time.monotonic()
    try:
        completion = RLM(lm, other_backends=[never], **job["rlm"]).completion(job["context"])
        outcome["answer"] = completion.response
    except RLMError as error:
        outcome["error"] = type(error).__name__
        outcome["draft"] = getattr(error, "partial_answer", None)
    outcome["seconds"] = time.monotonic() - started
    outcome["grown"] = megabytes("VmHWM") - baseline
    outcome["told"] = [call.prompt for call in lm.calls[1:]]
    print(json.dumps(outcome), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
