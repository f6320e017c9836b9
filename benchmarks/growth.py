"""Whether a long run stays flat: time of a turn and memory of the host, early and late, with log and notebook.

    python benchmarks/growth.py [--turns 500] [--queries 40] [--output 200000]
    python benchmarks/growth.py --context 1000  # only one run over a file of 1 GB, which the kernel reads

With these sizes a run has 20,000 sub-calls and 100 MB of output. Printed are medians of the turns around 20 and of the
last ones, the host's memory (RSS) there, and the files of the run.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from rlm import RLM
from rlm.logger import RLMLogger
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.types import Message, Reply, Usage

WINDOW = 10
EARLY = 20


def main() -> None:
    """Run once and print."""
    parser = argparse.ArgumentParser(description="Measure whether a long run stays flat.")
    parser.add_argument("--turns", type=int, default=500, help="turns (500)")
    parser.add_argument("--queries", type=int, default=40, help="sub-calls of a turn (40)")
    parser.add_argument("--output", type=int, default=200_000, help="bytes of output of a turn (200,000)")
    parser.add_argument("--context", type=int, metavar="MB", help="run once over a file of this size instead")
    options = parser.parse_args()
    if options.context:
        _measure_context(options.context)
        return
    cell = f"_ = llm_query_batched(['a'] * {options.queries})\nprint('x' * {options.output})"
    seen: list[tuple[float, float]] = []

    def reply(messages: Sequence[Message]) -> Reply:
        model.calls.clear()
        if messages[0]["role"] != "system":
            return Reply("42", "scripted", Usage(1, 1))
        seen.append((time.monotonic(), _resident()))
        text = f"```repl\n{cell}\n```" if len(seen) < options.turns else "FINAL(42)"
        return Reply(text, "scripted", Usage(1, 1))  # not a str, of which the script counts the whole history

    model = ScriptedLM(reply)
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        with RLM(model, logger=RLMLogger(folder), max_iterations=options.turns + 1) as rlm:
            assert rlm.completion("a text", "How many?").response == "42"
        seconds = time.monotonic() - began
        _print(seen, seconds, Path(folder))


def _measure_context(megabytes: int) -> None:
    """Run once over a large file, and print the time and the host's memory before and at most."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "context.txt")
        with path.open("wb") as file:
            for _ in range(megabytes):
                file.write(b"a line of text, 25 bytes\n" * 40_000)
        before, began = _resident(), time.monotonic()
        with RLM(ScriptedLM("```repl\nFINAL(len(context))\n```"), logger=RLMLogger(folder)) as rlm:
            answer = rlm.completion(path, "How long is it?").response
        seconds, most = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"{int(answer):,} characters in {seconds:.1f} s, host {before:.0f} MB before and {most:.0f} MB at most")


def _print(seen: Sequence[tuple[float, float]], seconds: float, folder: Path) -> None:
    turns = [after[0] - before[0] for before, after in pairwise(seen)]
    middle = min(EARLY, len(turns) // 2)
    for name, part in (("early", slice(middle, middle + WINDOW)), ("late", slice(-WINDOW, None))):
        milliseconds = 1000 * statistics.median(turns[part])
        print(f"{name:6} a turn {milliseconds:8.1f} ms   host {seen[part][-1][1]:7.0f} MB")
    lines = sum(text.count(b"\n") for text in (file.read_bytes() for file in folder.glob("*.jsonl")))
    print(f"all    {seconds:.1f} s, {lines:,} lines of the log, {lines / seconds:,.0f} a second")
    for file in sorted(folder.glob("rlm_*")):
        print(f"{file.suffix:7}{file.stat().st_size / 1e6:10.1f} MB")


def _resident() -> float:
    """The host's memory in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


if __name__ == "__main__":
    main()
