"""Write the results of `soak.py` and `batch_speed.py` into the documentation: tables, and a plot.

    python benchmarks/soak_report.py [FILE ...]    # files of `soak.py --json`; none: those that are stored

Only a part of each file is stored: samples of every ten seconds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "design" / "064-long-batches.md"
PLOT = ROOT / "docs" / "images" / "soak.svg"
BEGIN, END = "<!-- results: written by benchmarks/soak_report.py -->", "<!-- end of the results -->"
SHOWN = {
    "uss": "memory of its own, MB",
    "descriptors": "descriptors",
    "threads": "threads",
    "children": "child processes",
    "fork server": "memory of the fork servers, MB",
    "files": "temporary files",
    "tasks": "asyncio tasks",
    "blocks": "memory blocks of Python",
    "heap": "memory of the C library, MB",
}
PLACES = {"process": "one process", "dask": "Dask: driver and two workers"}
SECONDS = 10

Row = Mapping[str, Any]


def main() -> None:
    """Store what is new, and write the page and the plot."""
    for name in sys.argv[1:]:
        found = json.loads(Path(name).read_text("utf-8"))
        stored = RESULTS / f"soak-{found['sizes']['engine']}.json"
        stored.write_text(json.dumps(slim(found)) + "\n", "utf-8")
    runs = [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("soak-*.json"), reverse=True)]
    plot(runs, PLOT)
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    content = "\n\n".join(map(section, runs))
    PAGE.write_text(f"{before}{BEGIN}\n\n{content}\n\n{END}{rest.partition(END)[2]}", "utf-8")


def slim(found: Row) -> dict[str, Any]:
    """The numbers with fewer samples."""
    samples, due = [], 0.0
    for row in found["samples"]:
        if row["at"] >= due or row["idle"]:
            due = max(due, row["at"] + SECONDS)
            samples.append({name: round(value, 1) for name, value in row.items()})
    ends = [round(at) for at in found["ends"]]
    left_out = {"samples", "ends", "differences", "left"}
    return {name: value for name, value in found.items() if name not in left_out} | {"samples": samples, "ends": ends}


def section(found: Row) -> str:
    """The tables of a run."""
    wrong = [what.partition(": [")[0] for what in found["wrong"]]  # without the tasks
    lines = [
        f"### {PLACES[found['sizes']['engine']]}",
        _summary(found),
        _table(["fault", "times", "tokens whose reply was lost", "questions", "how they ended"], _matrix(found)),
        _table(["between two rounds", "after the warm-up", "at the end", "difference"], _growth(found)),
        f"Verdict: {'; '.join(wrong) or 'nothing grows, and the sums agree'}.",
    ]
    return "\n\n".join(lines)


def _summary(found: Row) -> str:
    provider, results = found["sums"]["provider"], found["sums"]["results"]
    return (
        f"{found['date']}, {found['seconds'] / 60:.0f} minutes, {sum(found['outcomes'].values()):,} questions, "
        f"{found['sizes']['at_once']} at once. The provider charged {provider['calls']:,} calls with "
        f"{provider['tokens']:,} tokens. The results add up to {results['tokens']:,}, of which "
        f"{found['unsent']['tokens']:,} are for calls that were stopped, and that the provider did not charge: it had "
        "refused them, or their worker was killed before it sent them."
    )


def _matrix(found: Row) -> Iterator[Sequence[str]]:
    for fault, row in sorted(found["matrix"].items()):
        ended = ", ".join(f"{count:,} {name}" for name, count in sorted(row["ended"].items()))
        yield fault, f"{row['faults']:,}", f"{row['tokens']:,}", f"{row['questions']:,}", ended
    ended = ", ".join(f"{count:,} {name}" for name, count in sorted(found["outcomes"].items()))
    yield (
        "all questions",
        "",
        f"{found['sums']['results']['estimated']:,}",
        f"{sum(found['outcomes'].values()):,}",
        ended,
    )


def _growth(found: Row) -> Iterator[Sequence[str]]:
    for name, label in SHOWN.items():
        row = found["growth"][name]
        yield label, f"{row['first']:,.1f}", f"{row['last']:,.1f}", f"{row['added']:+,.1f}"


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(runs: Sequence[Row], path: Path) -> None:
    """What the processes use over the time of a run, as an SVG. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "rlm-kernel"
    from matplotlib import pyplot as plt

    shown = {"uss": "MB of its own", "descriptors": "descriptors", "threads": "threads", "children": "processes"}
    figure, grid = plt.subplots(len(shown) + 1, len(runs), sharex="col", squeeze=False, figsize=(5 * len(runs), 8))
    for column, found in zip(grid.T, runs, strict=True):
        minutes, idle = [row["at"] / 60 for row in found["samples"]], [row["idle"] for row in found["samples"]]
        for axes, (name, label) in zip(column, shown.items(), strict=False):
            values = [row[name] for row in found["samples"]]
            axes.plot(minutes, values, linewidth=0.5, color="silver", label="during a round")
            pauses = [(at, value) for at, value, rests in zip(minutes, values, idle, strict=True) if rests]
            axes.plot(*zip(*pauses, strict=True), linewidth=1, label="between two rounds")
            axes.set(ylabel=label, ylim=(0, None))
        column[-1].plot([at / 60 for at in found["ends"]], range(1, len(found["ends"]) + 1), linewidth=1)
        column[-1].set(ylabel="questions", xlabel="minutes", ylim=(0, None))
        column[0].set_title(PLACES[found["sizes"]["engine"]])
    grid[0][0].legend(loc="lower right", fontsize="small")
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
