"""How fast a batch is, and whether one more question costs the same after 10,000.

    python benchmarks/batch_speed.py [--questions 1000] [--engine process|dask] [--at-once 8]
    python benchmarks/batch_speed.py --curve 100 1000 10000   # CPU of a question, by the length of the batch

The model answers at once (`ScriptedLM`), so this is the engine's own cost: a kernel, two cells and a log for each
question. CPU time is that of this process, and of all that it started: kernels, and workers of a cluster. It is more
trustworthy than the rate on a machine that others use.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from rlm import RLM, ScriptedLM
from rlm_kernel.types import Reply, Usage

CELLS = ("```repl\nwords = context.split()\nprint(len(words))\n```", "```repl\nFINAL(f'{len(words)} words')\n```")

Row = dict[str, float]


def reply(messages: Sequence[Any]) -> Reply:
    """Two turns: a cell that counts, and one that answers."""
    return Reply(CELLS[len(messages) > 2], "scripted", Usage(1000, 50))  # noqa: PLR2004 (system prompt and question)


class Model(ScriptedLM):
    """Forgets the requests, which would grow with the batch."""

    async def complete(self, *arguments: Any, **options: Any) -> Reply:
        """Answer."""
        self.calls.clear()
        return await super().complete(*arguments, **options)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the speed of a batch.")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--engine", choices=("process", "dask"), default="process")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument(
        "--curve", type=int, nargs="+", metavar="N", help="measure batches of these lengths instead, without kernels"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    options = parser.parse_args()
    if options.curve:
        found = {f"{count:,}": _curve(count) for count in options.curve}
    else:
        found = {options.engine: _measure(options)}
    found["about"] = {"load": os.getloadavg()[0], "cpus": float(os.cpu_count() or 0)}
    for name, row in found.items():
        print(f"{name:9}", "   ".join(f"{what} {value:,.4g}" for what, value in row.items()))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def _measure(options: argparse.Namespace) -> Row:
    with tempfile.TemporaryDirectory() as folder, _engine(options.engine) as engine, _rlm() as rlm:
        warm = ["two words"] * options.at_once
        assert all(
            result.answer == "2 words"
            for result in rlm.map(
                warm, "How many?", out=Path(folder, "warm.jsonl"), max_concurrent=options.at_once, **engine
            )
        )
        tasks = [f"text {n} of a batch" for n in range(options.questions)]
        before, began = _cpu(), time.perf_counter()
        out = Path(folder, "out.jsonl")
        answers = [
            result.answer for result in rlm.map(tasks, "How many?", out=out, max_concurrent=options.at_once, **engine)
        ]
        seconds, after = time.perf_counter() - began, _cpu()
        assert answers == ["5 words"] * len(tasks), set(answers)
    count = len(tasks)
    return {
        "a second": count / seconds,
        "host_ms": 1000 * (after[0] - before[0]) / count,
        "others_ms": 1000 * (after[1] - before[1]) / count,
        "a second by CPU": (os.cpu_count() or 1) * count / (sum(after) - sum(before)),
    }


def _rlm() -> RLM:
    return RLM(Model(reply))


@contextmanager
def _engine(name: str) -> Iterator[dict[str, Any]]:
    if name == "process":
        yield {}
        return
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=os.cpu_count(), threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield {"engine": client}


def _cpu() -> tuple[float, float]:
    """CPU seconds of this process and of what it has started, ended processes included."""
    own = time.process_time()
    live = psutil.Process().children(recursive=True)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    others = ended.ru_utime + ended.ru_stime
    for child in live:
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        others += times.user + times.system + times.children_user + times.children_system
    return own, others


def _curve(count: int) -> Row:
    """A batch without kernels: what its tasks, its results and a resumed call cost the host, each per question."""
    with tempfile.TemporaryDirectory() as folder, RLM(Model(answer), max_depth=0) as rlm:
        tasks, out = [{"id": f"q{n}", "context": f"text {n}"} for n in range(count)], Path(folder, "out.jsonl")
        memory, began = _resident(), time.process_time()
        most = 0.0
        for number, _ in enumerate(rlm.map(tasks, "How many?", out=out)):
            if number == count * 9 // 10:
                late = time.process_time()
            if number % 100 == 0:
                most = max(most, _resident())
        ended = time.process_time()
        assert sum(1 for _ in rlm.map(tasks, "How many?", out=out)) == count
        resumed = time.process_time() - ended
    return {
        "ms": 1000 * (ended - began) / count,
        "last tenth, ms": 1000 * (ended - late) / (count - count * 9 // 10),
        "resumed call, ms": 1000 * resumed / count,
        "memory, kB": 1000 * (most - memory) / count,
    }


def answer(_: Sequence[Any]) -> Reply:
    """A text of 480 characters."""
    return Reply("an answer of some words " * 20, "scripted", Usage(1000, 50))


def _resident() -> float:
    return psutil.Process().memory_info().rss / 1e6


if __name__ == "__main__":
    main()
