"""What the engine itself costs, beside the reference (`--reference`) and `dspy.RLM` (`--dspy`) on the same machine.

    python benchmarks/overhead.py [--reference PYTHON] [--dspy PYTHON] [--rounds N] [--json FILE]

Every side is a process of its own; a round asks each environment once, in an order that turns from round to round, so
that a machine that slows down or is busy slows all of them. A first, small round warms up and is not counted. The
samples are written to `benchmarks/results`; `report.py` writes them into the documentation.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from report import RESULTS, notes, table
from sides import Round, Samples

HERE = Path(__file__).parent

OURS = {"local": ["local", "local, pool"], "docker": ["docker", "docker, relay", "docker, pool"]}
REFERENCE = {"local": {"local": "exec", "kernel": "real kernel"}, "docker": {"docker": "docker"}}
"""By environment: ours, and the reference's with their labels."""

TINY = Round("", "", completions=1, turns=4, queries=2, prompts=(10,), megabytes=(1,), many=2)
SHORT = Round("", "", completions=5, turns=30, queries=50, prompts=(200,), megabytes=(10,), many=0)
FULL = Round("", "", completions=5, turns=240, queries=100, prompts=(500, 5000), megabytes=(10, 100), many=64)


class Side:
    """A process that measures one engine. Closing it ends it."""

    def __init__(self, script: str, python: str) -> None:
        self.command = [python, str(HERE / script)]
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environ()
        )
        self.versions: dict[str, str] = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            with contextlib.suppress(BrokenPipeError):
                self._pipe.close()
            self._process.wait()

    def measure(self, asked: Round) -> Samples:
        """The samples of one round."""
        self._pipe.write(json.dumps(asdict(asked)) + "\n")
        self._pipe.flush()
        samples: Samples = self._read()
        return samples

    @property
    def _pipe(self) -> Any:
        return self._process.stdin

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise SystemExit(f"{' '.join(self.command)} ended; its last words are above.")
        return json.loads(line)


@dataclass(frozen=True)
class Contestant:
    """An environment of a side, as a column of the table."""

    label: str
    side: Side
    environment: str

    def measure(self, asked: Round) -> Samples:
        """One round, and the start of a fresh process."""
        samples = self.side.measure(replace(asked, environment=self.environment))
        return samples | _fresh(self.side.command, self.environment, asked.provider)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _options(argv)
    with contextlib.ExitStack() as stack:
        asked = replace(TINY if options.tiny else FULL, provider=stack.enter_context(provider()))
        contestants = _contestants(stack, options)
        before = os.getloadavg()[0]
        samples = measured(contestants, asked, options.rounds)
    results = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "rounds": options.rounds,
        "machine": {**_machine(), "load before": round(before, 1), "load after": round(os.getloadavg()[0], 1)},
        "versions": {c.label.partition(":")[0]: c.side.versions for c in contestants},
        "sizes": {name: value for name, value in asdict(asked).items() if name not in ("provider", "environment")},
        "samples": samples,
    }
    print(f"{table(results)}\n\n{notes(results)}")
    file = options.json or (None if options.tiny else RESULTS / f"{options.environment}.json")
    if file is not None:
        file.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the overhead of the engine.")
    parser.add_argument("--environment", choices=OURS, default="local", help="where the kernels live (local)")
    parser.add_argument("--reference", metavar="PYTHON", help="an interpreter that has the reference (rlms) installed")
    parser.add_argument("--dspy", metavar="PYTHON", help="an interpreter that has dspy installed")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the samples (benchmarks/results/ENVIRONMENT.json)")
    parser.add_argument("--tiny", action="store_true", help="very small sizes: shows that it works, measures nothing")
    return parser.parse_args(argv)


@contextlib.contextmanager
def provider() -> Iterator[str]:
    """The base URL of a running `provider.py`."""
    command = [sys.executable, str(HERE / "provider.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


def _environ() -> dict[str, str]:
    """Ours without proxies, which cannot reach the loopback provider, and without the paths of our interpreter."""
    ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in ours and "_proxy" not in name.lower()}


def _contestants(stack: contextlib.ExitStack, options: argparse.Namespace) -> list[Contestant]:
    ours = stack.enter_context(Side("our_side.py", sys.executable))
    contestants = [Contestant(f"ours: {name}", ours, name) for name in OURS[options.environment]]
    if options.reference is not None:
        if options.environment == "docker":
            _build_image_of_reference()
        side = stack.enter_context(Side("reference_side.py", options.reference))
        found = REFERENCE[options.environment].items()
        contestants += [Contestant(f"reference: {label}", side, name) for name, label in found]
    if options.dspy is not None:
        side = stack.enter_context(Side("dspy_side.py", options.dspy))
        contestants.append(Contestant("dspy.RLM: subprocess", side, "subprocess"))
    return contestants


def _build_image_of_reference() -> None:
    """An image in which the reference finds the packages that it would install at each start."""
    recipe = "FROM python:3.11-slim\nRUN PIP_BREAK_SYSTEM_PACKAGES=1 pip install -q dill requests\n"
    command = ["docker", "build", "--quiet", "--tag", "rlm-bench-reference", "-"]
    subprocess.run(command, input=recipe, text=True, stdout=subprocess.DEVNULL, check=True)


def measured(contestants: Sequence[Contestant], asked: Round, rounds: int) -> dict[str, Samples]:
    """The samples of all rounds together, by contestant and measure."""
    samples: dict[str, Samples] = {contestant.label: {} for contestant in contestants}
    for number in range(rounds + 1):
        turned = [*contestants[number % len(contestants) :], *contestants[: number % len(contestants)]]
        for contestant in turned:
            found = contestant.measure(asked if number else replace(TINY, provider=asked.provider, many=0))
            for measure, values in found.items() if number else ():
                samples[contestant.label].setdefault(measure, []).extend(values)
        print(f"round {number} of {rounds}", file=sys.stderr)
    return samples


def _fresh(command: Sequence[str], environment: str, url: str) -> Samples:
    """Seconds of a process that makes one completion: on the clock, and of CPU with its children's."""
    before, began = os.times(), time.monotonic()
    subprocess.run([*command, environment, url, "turns-2"], env=_environ(), stdout=subprocess.DEVNULL, check=True)
    wall, after = time.monotonic() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"fresh wall": [wall], "fresh cpu": [cpu]}


def _machine() -> dict[str, Any]:
    with contextlib.suppress(OSError):
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        return {"processor": names[0].partition(":")[2].strip(), "cpus": os.cpu_count(), "system": platform.system()}
    return {"processor": platform.processor(), "cpus": os.cpu_count(), "system": platform.system()}


if __name__ == "__main__":
    main()
