"""A host of its own for one run, so that a signal can be sent to it: a job on stdin, what became of it on stdout.

The job is JSON: the `replies` of a scripted model, of which the last is repeated, and `max_timeout`. "begun" is written
when the run begins, and at the end its outcome and the CPU time of the process.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time

from rlm import RLM, RLMError, ScriptedLM
from rlm_kernel.trajectory.log.logger import RLMLogger


def main():
    job = json.load(sys.stdin)
    replies = itertools.chain(job["replies"], itertools.repeat(job["replies"][-1]))

    def reply(_):
        return next(replies).replace("WHOLE", job["fragment"] * (5_000_000 // max(1, len(job["fragment"]))))

    warm = ScriptedLM(["FINAL(1)"] * 3)
    RLM(warm, logger=RLMLogger(f"{job['folder']}/warm"), verbose=True).completion("imports what the run needs")
    lm = ScriptedLM(reply)
    logger = RLMLogger(job["folder"])
    print("begun", flush=True)
    try:
        # A scripted reply is streamed line by line to a live view, a million times: no provider sends it so.
        live = not job["fragment"]
        RLM(lm, max_timeout=job["max_timeout"], max_iterations=1000, logger=logger, verbose=live).completion("x")
        outcome = "answer"
    except (RLMError, KeyboardInterrupt) as error:
        outcome = type(error).__name__
    print(json.dumps([outcome, time.process_time()]), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
