"""What the engine itself costs, and, with `--reference`, what the reference costs on the same machine at the same time.

    python benchmarks/overhead.py [--environment docker] [--reference PYTHON] [--rounds N] [--json FILE]

Every side is a process of its own; a round asks each environment once, in an order that turns from round to round, so
that a machine that slows down or is busy slows all of them. The table shows medians over all rounds and how many times
as long the reference takes (above 1: we are faster). A first round warms up and is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from sides import Round, Samples

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        measure: the name of the samples.
        label: what is shown.
        unit: seconds of one unit.
        goal: seconds, or None when there is none.
    """

    measure: str
    label: str
    unit: float
    goal: float | None = None

    def shown(self, seconds: float | None) -> str:
        """A time in this row's unit."""
        return "" if seconds is None else _digits(seconds / self.unit)


MILLISECONDS, MICROSECONDS = 1e-3, 1e-6
UNITS = {MILLISECONDS: "ms", MICROSECONDS: "µs"}


GOALS = {
    "local": {"ready": 0.35, "cell": 3e-3, "query": 0.8e-3, "batch": 20e-6, "context 100 MB": 0.25},
    "docker": {"ready": 0.9, "cell": 4e-3, "query": 1.2e-3, "context 100 MB": 0.5},
}
"""Seconds, by environment and measure; for the first column. Ready from the pool: 0.06; a cell over the relay: 6e-3."""
COLUMNS = {
    "local": (["local"], {"local": "local", "ipython": "ipython", "kernel": "real kernel"}),
    "docker": (["docker", "docker, relay", "docker, pool"], {"docker": "docker"}),
}
"""By environment: ours, and the reference's with their labels."""


class Side:
    """A process that measures one engine. Closing it ends it."""

    def __init__(self, script: str, python: str) -> None:
        self._name = f"{script}, run by {python},"
        self._process = subprocess.Popen(
            [python, str(HERE / script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environ()
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
            raise SystemExit(f"{self._name} ended; its last words stand above.")
        return json.loads(line)


@dataclass(frozen=True)
class Contestant:
    """An environment of a side, as a column of the table."""

    label: str
    side: Side
    environment: str


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _options(argv)
    with contextlib.ExitStack() as stack:
        provider = stack.enter_context(_provider())
        contestants = _contestants(stack, options.environment, options.reference)
        before = os.getloadavg()[0]
        rounds = _rounds(contestants, _round(provider, tiny=options.tiny), options.rounds)
        results = {c.label: samples for c, samples in zip(contestants, _merged(rounds), strict=True)}
    versions = {c.label.split()[0]: c.side.versions for c in contestants}
    machine = {"cpus": os.cpu_count(), "load before": round(before, 1), "load after": round(os.getloadavg()[0], 1)}
    print(_table(results, _rows(_round(provider, tiny=options.tiny), GOALS[options.environment])))
    print(_notes(versions, machine, options.rounds))
    if options.json is not None:
        raw = {"versions": versions, "machine": machine, "seconds": results}
        options.json.write_text(json.dumps(raw, indent=1), "utf-8")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the overhead of the engine.")
    parser.add_argument("--environment", choices=GOALS, default="local", help="where the kernels live (local)")
    parser.add_argument("--reference", metavar="PYTHON", help="an interpreter that has the reference (rlms) installed")
    parser.add_argument("--rounds", type=int, default=7, help="how often everything is measured (7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples, in seconds")
    parser.add_argument("--tiny", action="store_true", help="very small sizes: shows that it works, measures nothing")
    return parser.parse_args(argv)


def _round(provider: str, *, tiny: bool) -> Round:
    if tiny:
        return Round("", provider, cells=2, queries=2, batches=1, prompts=10, megabytes=(1,), completions=1)
    return Round("", provider, cells=50, queries=100, batches=3, prompts=1000, megabytes=(10, 100), completions=2)


def _rows(asked: Round, goals: dict[str, float]) -> list[Row]:
    contexts = {f"context {size} MB": f"a context of {size} MB" for size in asked.megabytes}
    return [
        Row("ready", "ready and first cell", MILLISECONDS, goals["ready"]),
        Row("cell", "a cell", MILLISECONDS, goals["cell"]),
        Row("query", "llm_query", MILLISECONDS, goals["query"]),
        Row("batch", f"a prompt of a batch of {asked.prompts:,}", MICROSECONDS, goals.get("batch")),
        *(Row(name, label, MILLISECONDS, goals.get(name)) for name, label in contexts.items()),
        Row("completion", "completion of two turns", MILLISECONDS),
        Row("first completion", "… and the model's client built", MILLISECONDS),
        Row("close", "close", MILLISECONDS),
    ]


@contextlib.contextmanager
def _provider() -> Iterator[str]:
    """The base URL of a running `provider.py`."""
    command = [sys.executable, str(HERE / "provider.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def _environ() -> dict[str, str]:
    """Ours without proxies, which cannot reach the loopback provider, and without the paths of our interpreter."""
    ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in ours and "_proxy" not in name.lower()}


def _contestants(stack: contextlib.ExitStack, environment: str, reference: str | None) -> list[Contestant]:
    of_ours, of_reference = COLUMNS[environment]
    side = stack.enter_context(Side("our_side.py", sys.executable))
    contestants = [Contestant(f"ours: {name}", side, name) for name in of_ours]
    if reference is not None:
        if environment == "docker":
            _build_image_of_reference()
        side = stack.enter_context(Side("reference_side.py", reference))
        contestants += [Contestant(f"reference: {label}", side, name) for name, label in of_reference.items()]
    return contestants


def _build_image_of_reference() -> None:
    """An image in which the reference finds the packages that it would install at each start."""
    recipe = "FROM python:3.11-slim\nRUN PIP_BREAK_SYSTEM_PACKAGES=1 pip install -q dill requests\n"
    command = ["docker", "build", "--quiet", "--tag", "rlm-bench-reference", "-"]
    subprocess.run(command, input=recipe, text=True, stdout=subprocess.DEVNULL, check=True)


def _rounds(contestants: Sequence[Contestant], asked: Round, rounds: int) -> Iterator[list[Samples]]:
    """The samples of each round, in the order of the contestants. The first round is thrown away."""
    for number in range(rounds + 1):
        turned = [*contestants[number % len(contestants) :], *contestants[: number % len(contestants)]]
        samples = {c.label: _measured(c, asked) for c in turned}
        if number > 0:
            yield [samples[c.label] for c in contestants]
        print(f"round {number} of {rounds}", file=sys.stderr)


def _measured(contestant: Contestant, asked: Round) -> Samples:
    return contestant.side.measure(Round(**{**asdict(asked), "environment": contestant.environment}))


def _merged(rounds: Iterable[list[Samples]]) -> list[Samples]:
    """The samples of all rounds together, for each contestant."""
    return [
        {measure: [second for one in column for second in one[measure]] for measure in column[0]}
        for column in zip(*rounds, strict=True)
    ]


def _table(results: dict[str, Samples], rows: Sequence[Row]) -> str:
    """A Markdown table: a row for each measure, ours first, for each of the others its ratio."""
    ours, *others = results
    head = ["", "", ours, "goal", *(cell for label in others for cell in (label, "ratio"))]
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for row in rows:
        medians = {label: statistics.median(samples[row.measure]) for label, samples in results.items()}
        compared = (
            cell for label in others for cell in (row.shown(medians[label]), _digits(medians[label] / medians[ours]))
        )
        lines.append([row.label, UNITS[row.unit], row.shown(medians[ours]), row.shown(row.goal), *compared])
    return "\n".join(f"| {' | '.join(line)} |" for line in _padded(lines))


def _padded(lines: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for label, *cells in lines:
        yield [label.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))]


def _digits(value: float) -> str:
    """The number with three digits, and more before the point."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def _notes(versions: dict[str, dict[str, str]], machine: dict[str, Any], rounds: int) -> str:
    sides = "".join(
        f"{label} {', '.join(f'{name} {number}' for name, number in found.items())}.\n"
        for label, found in versions.items()
    )
    return (
        f"\nMedians of {rounds} rounds; the ratio is that time divided by ours (the first column).\n"
        f"{sides}{', '.join(f'{name} {value}' for name, value in machine.items())}."
    )


if __name__ == "__main__":
    main()
