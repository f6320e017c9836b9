"""Show the results of `overhead.py`: as a Markdown table, and with the plot in the documentation.

python benchmarks/report.py [FILE]     # writes docs/benchmarks.md's table and plot from the stored results
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
PLOT = ROOT / "docs" / "images" / "benchmarks.svg"
BEGIN, END = "<!-- results: written by benchmarks/report.py -->", "<!-- end of the results -->"

Samples = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Row:
    """A line of the table: the label of a measure, and the size of its unit in seconds or bytes."""

    label: str
    unit: str
    size: float


QUARTERS = 4
UNITS = {"s": 1.0, "ms": 1e-3, "MB": 1e6, "": 1.0}
ROWS = {
    "first cell": ("start to first cell reported", "ms"),
    "completion": ("two-turn completion", "ms"),
    "turn": ("a turn, at turns 5–25", "ms"),
    "late turn": ("a turn, at the end of {turns}", "ms"),
    "query": ("`llm_query`", "ms"),
    "batch": ("a batch of {0} sub-calls", "ms"),
    "context": ("a context of {0}, extra", "ms"),
    "fresh wall": ("a fresh process, one completion", "s"),
    "fresh cpu": ("… its CPU time", "s"),
    "memory": ("memory of a kernel (PSS), 8 at once", "MB"),
    "processes": ("processes of a kernel", ""),
    "completions": ("{many} completions, 8 at once", "s"),
    "children": ("{many} children of one batch, 8 at once", "s"),
}


def row_of(measure: str, sizes: Mapping[str, Any]) -> Row:
    """The line of a measure; the name of some ends with a size."""
    kind = next((kind for kind in ("batch", "context") if measure.startswith(f"{kind} ")), measure)
    label, unit = ROWS[kind]
    return Row(label.format(measure.removeprefix(f"{kind} "), **sizes), unit, UNITS[unit])


def table(results: Mapping[str, Any]) -> str:
    """A Markdown table: medians with their range between the quartiles; for the others, how many times ours."""
    found: Mapping[str, Samples] = results["samples"]
    ours, *others = found
    lines = [["", ours, *others], ["---", *["---:"] * len(found)]]
    for measure in found[ours]:
        row, own = row_of(measure, results["sizes"]), statistics.median(found[ours][measure])
        cells = [_cell(found[label].get(measure), row, None if label == ours else own) for label in found]
        lines.append([f"{row.label}{f', {row.unit}' if row.unit else ''}", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in _padded(lines))


def _cell(samples: Sequence[float] | None, row: Row, own: float | None) -> str:
    if not samples:
        return "–"
    median = statistics.median(samples)
    low, high = _spread(samples)
    ratio = f" ×{digits(median / own)}" if own else ""
    return f"{digits(median / row.size)} ({digits(low / row.size)}–{digits(high / row.size)}){ratio}"


def _spread(samples: Sequence[float]) -> tuple[float, float]:
    if len(samples) < QUARTERS:
        return min(samples), max(samples)
    low, _, high = statistics.quantiles(samples, n=QUARTERS)
    return low, high


def _padded(lines: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]


def digits(value: float) -> str:
    """The number with three digits, and more before the point."""
    return "0" if value <= 0 else f"{value:,.{min(4, max(0, 2 - math.floor(math.log10(value))))}f}"


def notes(results: Mapping[str, Any]) -> str:
    """Date, machine and versions."""
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    versions = [
        f"- {side}: {', '.join(f'{name} {number}' for name, number in found.items())}"
        for side, found in results["versions"].items()
    ]
    spread = "quartiles; of fewer than four samples, the ends"
    return (
        f"Measured on {results['date']}: {machine}.\n"
        f"Medians of {results['rounds']} rounds ({spread}); × is how many times ours.\n\n" + "\n".join(versions)
    )


def plot(results: Mapping[str, Any], path: Path) -> None:
    """How many times ours each measure takes, as an SVG. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "rlm-kernel"
    from matplotlib import pyplot as plt

    found: Mapping[str, Samples] = results["samples"]
    ours, *others = found
    measures = [name for name in found[ours] if any(name in found[other] for other in others)]
    figure, axes = plt.subplots(figsize=(9, 0.45 * len(measures) + 1.5))
    for place, label in enumerate(others):
        shift = 0.8 * (place / max(1, len(others))) - 0.3
        points = [
            (index + shift, statistics.median(found[label][name]) / statistics.median(found[ours][name]))
            for index, name in enumerate(measures)
            if name in found[label] and statistics.median(found[ours][name]) > 0
        ]
        axes.barh([y for y, _ in points], [x for _, x in points], height=0.8 / max(1, len(others)), label=label)
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", xlabel=f"times {ours} (right of 1: slower)")
    axes.set_yticks(range(len(measures)), [row_of(name, results["sizes"]).label.strip("`") for name in measures])
    axes.invert_yaxis()
    if others:
        axes.legend()
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def write_page(results: Mapping[str, Any], page: Path = PAGE, picture: Path = PLOT) -> None:
    """Replace the results in the documentation."""
    plot(results, picture)
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    image = f"![How many times ours each measure takes](images/{picture.name})"
    content = f"\n\n{table(results)}\n\n{notes(results)}\n\n{image}\n\n"
    page.write_text(f"{before}{BEGIN}{content}{END}{after}", "utf-8")


if __name__ == "__main__":
    stored = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "local.json"
    write_page(json.loads(stored.read_text("utf-8")))
