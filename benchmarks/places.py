"""What a kernel costs in each place that this machine has: medians, as a table.

    python benchmarks/places.py [--rounds N] [PLACE ...]

The places take turns, so that a busy machine slows all of them. The Jupyter server and the sshd are those of the tests,
on loopback. A round opens a session, runs empty cells and asks `llm_query`, which is answered at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment
from rlm_kernel.types import Answer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from machines import JupyterServer, SSHServer

CELLS = 100
QUERIES = 200
REFILL_SECONDS = 3.0
"""For a pool, after its kernel was taken."""
PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "local": ("local", {}),
    "local, pool": ("local", {"pool": 1}),
    "local, fork=False": ("local", {"fork": False}),
    "landlock": ("local", {"sandbox": "landlock"}),
    "bwrap": ("local", {"sandbox": "bwrap"}),
    "bwrap, pool": ("local", {"sandbox": "bwrap", "pool": 1}),
    "docker": ("docker", {}),
    "docker, pool": ("docker", {"pool": 1}),
    "ssh": ("ssh", {}),
    "jupyter": ("jupyter", {}),
}
ASKING = f"""
import time
started = time.perf_counter()
for _ in range({QUERIES}): llm_query("x")
print((time.perf_counter() - started) / {QUERIES})
"""


class Echo:
    """Answers every sub-call with its prompt."""

    async def answer(self, query: Any) -> Sequence[Answer]:
        """The prompts of the call."""
        return [Answer(prompt) for prompt in query.prompts]


async def measure(name: str, options: dict[str, Any]) -> dict[str, float]:
    """One round in a place: seconds."""
    if "pool" in options:
        await asyncio.sleep(REFILL_SECONDS)
    before = time.perf_counter()
    async with await Session.open(environment(name, options), Echo()) as session:
        await session.run("pass")
        start = time.perf_counter() - before
        times = []
        for _ in range(CELLS):
            before = time.perf_counter()
            await session.run("pass")
            times.append(time.perf_counter() - before)
        asked = float((await session.run(ASKING)).stdout)
        before = time.perf_counter()
    closed = time.perf_counter() - before
    return {"start": start, "cell": statistics.median(times), "llm_query": asked, "close": closed}


@contextlib.contextmanager
def machines(names: Sequence[str]) -> Iterator[dict[str, dict[str, Any]]]:
    """The servers of the places, and the options that lead to them."""
    with contextlib.ExitStack() as stack:
        options = {}
        for name, server in {"jupyter": JupyterServer, "ssh": SSHServer}.items():
            if name in names:
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                options[name] = stack.enter_context(server(folder)).kernel_options
        yield options


async def rounds(names: Sequence[str], count: int, more: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The samples of all places. The first round warms up and is not counted."""
    samples: dict[str, Any] = defaultdict(lambda: defaultdict(list))
    for number in range(count + 1):
        for name in names:
            place, options = PLACES[name]
            for row, seconds in (await measure(place, {**options, **more.get(place, {})})).items():
                if number:
                    samples[name][row].append(seconds)
    return samples


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure what a kernel costs in each place.")
    parser.add_argument("places", nargs="*", metavar="PLACE", help=", ".join(PLACES))
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (5)")
    asked = parser.parse_args()
    names = asked.places or list(PLACES)
    before = os.getloadavg()[0]
    with machines(names) as options:
        samples = asyncio.run(rounds(names, asked.rounds, options))
    print("| | start to the first cell | cell | `llm_query` | close |\n|---|--:|--:|--:|--:|")
    for name, rows in samples.items():
        print(f"| {name} | {' | '.join(f'{statistics.median(times) * 1000:.1f} ms' for times in rows.values())} |")
    print(f"\nMedians of {asked.rounds} rounds; load {before:.1f} before, {os.getloadavg()[0]:.1f} after.")


if __name__ == "__main__":
    main()
