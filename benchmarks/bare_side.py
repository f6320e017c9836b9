"""A bare Jupyter kernel on the side: what `jupyter_client` and `ipykernel` cost alone on this machine.

`guard.py` divides by it, so that a slow machine is not taken for a slow engine. See `sides.py`.
"""

from __future__ import annotations

import json
import os
import sys
import time

from jupyter_client.manager import start_new_kernel

CELLS = 50


def measure() -> dict[str, list[float]]:
    """The seconds of a start with a first cell, and of a cell."""
    began = time.monotonic()
    manager, client = start_new_kernel()
    cells = []
    try:
        client.execute_interactive("1", output_hook=lambda _: None)
        started = time.monotonic() - began
        for _ in range(CELLS):
            began = time.monotonic()
            client.execute_interactive("1", output_hook=lambda _: None)
            cells.append(time.monotonic() - began)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return {"start": [started], "cell": cells}


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with answers:
        print("{}", file=answers, flush=True)
        for _ in sys.stdin:
            print(json.dumps(measure()), file=answers, flush=True)
