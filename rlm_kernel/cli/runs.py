"""List recorded runs, search and filter them, and keep tags and notes.

PATH is a folder of logs (default: ./rlm_logs, or ./logs if that does not exist). With --add-tag,
--remove-tag, --note or --set-thumb it is one log, whose notes are changed.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import terminal
from rlm_kernel.cli import exit_codes
from rlm_kernel.errors import ConfigError
from rlm_kernel.text import format_cost, format_duration, one_line, plain

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rlm_kernel.trajectory.runs.notes import Notes
    from rlm_kernel.trajectory.runs.query import Run

NAME = "runs"

_SHOWN = "state,began,question,model,seconds,tokens,cost,tags"
_SHOWN_NARROW = "state,began,question,seconds,cost"
_NARROW = 110
_FILTERS = ("search", "model", "state", "tag", "thumb", "since", "until", "min_cost", "max_cost", "sort")
_AT_ONCE = 50
_WIDTH = 160
"""Of the table where there is no terminal."""
_TEXTS = frozenset({"question", "answer", "name", "note"})
_MIN_TEXT, _MAX_WIDTH = 16, 28
_NUMBERS = frozenset({"seconds", "turns", "calls", "tokens", "cost", "size"})
_STYLES = {
    "answered": "green",
    "failed": "red",
    "stopped": "yellow",
    "limit": "yellow",
    "running": "cyan",
    "lost": "dim",
}
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a cell that a spreadsheet evaluates."""
_THUMBS = {"up": "👍", "down": "👎"}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add("path", nargs="?", metavar="PATH", help="a folder of logs; to change notes, one log or its notebook")
    _add_filters(parser)
    add = parser.add_argument_group("list").add_argument
    add("--sort", metavar="COLUMN", help="the column to sort by (default: began)")
    add("--ascending", action="store_true", help="the smallest value first")
    add("--columns", metavar="A,B,…", help=f"what is shown (default: {_SHOWN})")
    add("--limit", type=int, metavar="N", help="at most N runs; 0: all (default: 50 in a table, else all)")
    add("--format", choices=("table", "json", "csv"), default="table", help="json: one object a line, all columns")
    add("--plot", action="store_true", help="outcomes, cost and time by model, as bars")
    add = parser.add_argument_group("notes of one run").add_argument
    add("--add-tag", action="append", default=[], metavar="TAG", help="add a tag; may be given several times")
    add("--remove-tag", action="append", default=[], metavar="TAG", help="remove a tag")
    add("--note", metavar="TEXT", help='replace the note; "" removes it')
    add("--set-thumb", choices=("up", "down", "none"), help="a thumb up or down")


def _add_filters(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("filters").add_argument
    add("--search", metavar="WORDS", help="words in the question, the answer, the error, the name, a tag or the note")
    add("--model", metavar="NAME", help="a part of the name of the root model")
    add("--state", metavar="STATE", help="running, answered, stopped, limit, failed or lost")
    add("--tag", metavar="TAG", help="a tag that the run has")
    add("--thumb", choices=("up", "down"), help="a thumb that the run has")
    add("--since", metavar="DATE", help="began on this day or later, such as 2026-11-30 or 2026-11-30T09:00")
    add("--until", metavar="DATE", help="began on this day or earlier")
    add("--min-cost", metavar="USD", help="cost at least this much")
    add("--max-cost", metavar="USD", help="cost at most this much")


def execute(args: Namespace) -> int:
    """Print the list, or change the notes of a run and print them.

    Raises:
        ConfigError, RecordingError: there is no such folder, log or column.
    """
    if args.add_tag or args.remove_tag or args.note is not None or args.set_thumb:
        return _change_notes(args)
    from rlm_kernel.trajectory.runs.index import usual_folder
    from rlm_kernel.trajectory.runs.query import COLUMNS, Query
    from rlm_kernel.trajectory.runs.table import runs_in

    columns = [name.strip() for name in (args.columns or _default_columns()).split(",")]
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise ConfigError(f"There is no column {unknown[0]!r}: choose from {', '.join(COLUMNS)}.")
    folder = usual_folder() if args.path is None else Path(args.path)
    query = Query.of({**{name: getattr(args, name) for name in _FILTERS}, "descending": not args.ascending})
    found = runs_in(folder, query)
    if args.format == "table":
        _draw(found, columns, args, folder)
        return exit_codes.OK
    write = _as_json if args.format == "json" else _as_csv
    terminal.print_result(write(found[: args.limit or None], folder))
    return exit_codes.OK


def _default_columns() -> str:
    is_narrow = sys.stdout.isatty() and shutil.get_terminal_size().columns < _NARROW
    return _SHOWN_NARROW if is_narrow else _SHOWN


def _change_notes(args: Namespace) -> int:
    from rlm_kernel.trajectory.runs.notes import annotate

    if args.path is None:
        raise ConfigError("Name the log whose notes are to be changed: rlm runs LOG.jsonl --add-tag TAG.")
    notes = annotate(
        args.path, add_tags=args.add_tag, remove_tags=args.remove_tag, note=args.note, thumb=args.set_thumb
    )
    terminal.print_result(_words_of(notes) or "no notes")
    return exit_codes.OK


def _words_of(notes: Notes) -> str:
    return " · ".join(filter(None, (_THUMBS.get(notes.thumb or "", ""), ", ".join(notes.tags), notes.note)))


def _as_json(runs: Sequence[Run], folder: Path) -> str:
    from rlm_kernel.trajectory.runs.table import record_of

    return "\n".join(json.dumps(record_of(run, folder), default=datetime.isoformat) for run in runs)


def _as_csv(runs: Sequence[Run], folder: Path) -> str:
    from rlm_kernel.trajectory.runs.query import COLUMNS
    from rlm_kernel.trajectory.runs.table import record_of

    text = io.StringIO()
    table = csv.DictWriter(text, ["log", *COLUMNS, "error"], lineterminator="\n")
    table.writeheader()
    for run in runs:
        record = record_of(run, folder)
        row = {**record, "began": record["began"].isoformat(), "tags": ";".join(record["tags"])}
        table.writerow({name: _as_text(value) for name, value in row.items()})
    return text.getvalue().rstrip("\n")


def _as_text(value: Any) -> Any:
    """A text that a spreadsheet takes for a text, and not for a formula; other values as they are."""
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text.lstrip(" \n\ufeff").startswith(_FORMULAS) else text


def _draw(runs: Sequence[Run], columns: Sequence[str], args: Namespace, folder: Path) -> None:
    """The runs as a table, and what they are together."""
    from rich.table import Table
    from rich.text import Text

    from rlm_kernel.untrusted.plain_console import PlainConsole

    console = PlainConsole(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDTH)
    if not runs:
        terminal.print_result(f"No run in {folder} is like that.")
        return
    shown = runs[: (_AT_ONCE if args.limit is None else args.limit) or None]
    rows = [[_shown(run, name) for name in columns] for run in shown]
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    for name, width in zip(columns, _widths(rows, columns, console.width), strict=True):
        align: Any = "right" if name in _NUMBERS else "left"
        table.add_column(name, justify=align, no_wrap=True, overflow="ellipsis", width=width)
    for run, row in zip(shown, rows, strict=True):
        styles = [_STYLES[run.summary.state] if name == "state" else "" for name in columns]
        table.add_row(*map(Text, row, styles))
    console.print(table)
    if len(shown) < len(runs):
        console.print(Text(f"… and {len(runs) - len(shown):,} more: --limit 0 shows all", style="dim"))
    console.print(Text(_totals(runs), style="bold"))
    if args.plot:
        console.print(_bars(runs))


def _widths(rows: Sequence[Sequence[str]], columns: Sequence[str], width: int) -> list[int]:
    """The widths of the columns: texts share what the others leave."""
    from rich.cells import cell_len

    needed = [max(map(cell_len, (name, *(row[place] for row in rows)))) for place, name in enumerate(columns)]
    needed = [min(most, _MAX_WIDTH) if name not in _TEXTS else most for name, most in zip(columns, needed, strict=True)]
    texts = [name for name in columns if name in _TEXTS]
    left = width - len(columns) - sum(most for name, most in zip(columns, needed, strict=True) if name not in _TEXTS)
    share = max(_MIN_TEXT, left // max(1, len(texts)))
    return [min(most, share) if name in _TEXTS else most for name, most in zip(columns, needed, strict=True)]


def _shown(run: Run, column: str) -> str:  # noqa: PLR0911 (one return for each kind of column)
    value = run.value(column)
    if column == "cost":
        return format_cost(value, "-")
    if value is None:
        return "-" if column in _NUMBERS else ""
    match column:
        case "began":
            return f"{datetime.fromtimestamp(value).astimezone():%Y-%m-%d %H:%M}"
        case "seconds":
            return format_duration(value)
        case "tags":
            return ", ".join(value)
        case "thumb":
            return _THUMBS[value]
    return f"{value:,}" if isinstance(value, int) else one_line(plain(str(value)), 300)


def _totals(runs: Sequence[Run]) -> str:
    """How many runs there are, in which states, and what they cost: the known costs."""
    states = Counter(run.summary.state for run in runs)
    counts = ", ".join(f"{count:,} {state}" for state, count in states.most_common())
    known = [run.summary.cost for run in runs if run.summary.cost is not None]
    cost = f"{format_cost(sum(known))} for {len(known):,} with a known cost" if known else "no cost is known"
    return f"{len(runs):,} run{'s' * (len(runs) != 1)}: {counts} · {cost}"


def _bars(runs: Sequence[Run]) -> Any:
    """Outcomes, cost and the median time by model."""
    from statistics import median

    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name in ("model", "runs", "answered", "", "cost", "median time"):
        table.add_column(name, justify="left" if name in ("model", "") else "right", no_wrap=True, overflow="ellipsis")
    models = Counter(run.summary.model for run in runs)
    for model, count in models.most_common():
        own = [run.summary for run in runs if run.summary.model == model]
        answered = sum(one.state == "answered" for one in own)
        costs = [one.cost for one in own if one.cost is not None]
        times = [one.seconds for one in own if one.seconds is not None]
        bar = ProgressBar(total=count, completed=answered, width=20, complete_style="green", finished_style="green")
        cost = format_cost(sum(costs) if costs else None, "-")
        label, share = Text(plain(model) or "unknown"), f"{answered / count:.0%}"
        table.add_row(label, f"{count:,}", share, bar, cost, format_duration(median(times)) if times else "-")
    return table
