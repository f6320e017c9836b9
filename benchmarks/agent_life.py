"""200 messages of one agent: seconds per message, and the memory of the host and of the kernel.

python benchmarks/agent_life.py [--log] [--svg docs/images/agent-200.svg]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence

import psutil

from rlm import AgentRLM, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel.types import Message

MESSAGES = 200
EACH = 10
"""Messages between two measurements."""

Row = tuple[int, float, float, float]
"""Messages so far, median milliseconds of a message, MB of the host, MB of its children."""


def script() -> ScriptedLM:
    """A model that runs one cell for each message and then answers."""
    count = itertools.count()

    def reply(messages: Sequence[Message]) -> str:
        if messages[-1]["content"].startswith("Output"):
            return "FINAL(That is answered, and here are a few words more.)"
        return f"```repl\nx{next(count) % 20} = sum(range(1000)); print('word ' * 100)\n```"

    return ScriptedLM(reply)


async def measure(folder: str | None) -> list[Row]:
    """A row for every `EACH` messages. `folder`: for a log; None: none is written."""
    lm, me, rows, seconds = script(), psutil.Process(), [], []
    async with AgentRLM(lm, logger=RLMLogger(folder) if folder else None) as agent:
        for number in range(1, MESSAGES + 1):
            began = time.perf_counter()
            async for _ in agent.chat(f"Message {number}. " + "some words " * 20):
                pass
            seconds.append(time.perf_counter() - began)
            lm.calls.clear()  # the test double keeps all requests
            if number % EACH == 0:
                gc.collect()
                kernel = sum(child.memory_info().rss for child in me.children(recursive=True))
                median = 1000 * statistics.median(seconds[-EACH:])
                rows.append((number, median, me.memory_info().rss / 1e6, kernel / 1e6))
    return rows


def draw(rows: list[Row], path: str) -> None:
    """Write the plot."""
    from matplotlib import pyplot as plt

    figure, (upper, lower) = plt.subplots(2, 1, sharex=True, figsize=(7, 4))
    numbers = [row[0] for row in rows]
    upper.plot(numbers, [row[1] for row in rows])
    upper.set(ylabel="ms per message", ylim=(0, None))
    lower.plot(numbers, [row[2] for row in rows], label="host")
    lower.plot(numbers, [row[3] for row in rows], label="kernel and its server")
    lower.set(xlabel="messages", ylabel="MB", ylim=(0, None))
    lower.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", action="store_true")
    parser.add_argument("--svg")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(measure(folder if options.log else None))
    for row in rows:
        print("{:4} messages  {:6.1f} ms  {:6.1f} MB host  {:6.1f} MB kernel".format(*row))
    if options.svg:
        draw(rows, options.svg)


if __name__ == "__main__":
    main()
