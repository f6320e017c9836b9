"""Whether the engine became slower: compare it, on this machine and now, with the stored ratios to a bare kernel.

    python benchmarks/guard.py [--margin 2] [--store]

What `jupyter_client` and `ipykernel` cost alone is measured in the same rounds, so that the speed of the machine
cancels out. Exits with 1 when a measure takes more than `--margin` times as long as stored.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from overhead import SHORT, TINY, Side, provider
from sides import Samples

STORED = Path(__file__).parent / "results" / "guard.json"
BARE = {"first cell": "start", "completion": "start", "context 10 MB": "start", "batch 200": "start"}
"""What a measure is divided by; the others by a cell of the bare kernel."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print a table. Returns 1 if something became slower."""
    parser = argparse.ArgumentParser(description="Compare the speed of the engine with the stored ratios.")
    parser.add_argument("--margin", type=float, default=2.0, help="how many times the stored ratio is accepted (2)")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (3)")
    parser.add_argument("--store", action="store_true", help="store the ratios of now")
    options = parser.parse_args(argv)
    now = _ratios(options.rounds)
    if options.store:
        STORED.write_text(json.dumps(now, indent=1) + "\n", "utf-8")
    stored: dict[str, float] = json.loads(STORED.read_text("utf-8"))
    slower = compare(now, stored, options.margin)
    return 1 if slower else 0


def compare(now: Mapping[str, float], stored: Mapping[str, float], margin: float) -> list[str]:
    """Print the table. Returns the measures that became slower."""
    slower = [name for name, ratio in stored.items() if now[name] > margin * ratio]
    print(f"{'times a bare kernel':22} {'stored':>8} {'now':>8} {'change':>8}")
    for name, ratio in stored.items():
        word = f"  slower than {margin:g} times" if name in slower else ""
        print(f"{name:22} {ratio:8.3f} {now[name]:8.3f} {now[name] / ratio:7.2f}×{word}")
    return slower


def _ratios(rounds: int) -> dict[str, float]:
    ours: Samples = {}
    bare: Samples = {}
    with contextlib.ExitStack() as stack:
        asked = replace(SHORT, environment="local", provider=stack.enter_context(provider()))
        side = stack.enter_context(Side("our_side.py", sys.executable))
        kernel = stack.enter_context(Side("bare_side.py", sys.executable))
        side.measure(replace(TINY, environment="local", provider=asked.provider, many=0))
        for _ in range(rounds):
            for samples, found in ((ours, side.measure(asked)), (bare, kernel.measure(asked))):
                for measure, values in found.items():
                    samples.setdefault(measure, []).extend(values)
    base = {name: statistics.median(values) for name, values in bare.items()}
    return {name: statistics.median(values) / base[BARE.get(name, "cell")] for name, values in ours.items()}


if __name__ == "__main__":
    sys.exit(main())
