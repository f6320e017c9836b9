"""The list of runs as the page gets it: what a query finds, and what the page may choose from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rlm_kernel.errors import ConfigError, RecordingError
from rlm_kernel.html.prose import in_words
from rlm_kernel.trajectory.runs.notes import annotate
from rlm_kernel.trajectory.runs.query import COLUMNS, Query, Run
from rlm_kernel.trajectory.states import STATES
from rlm_kernel.viewer.folder import Folder

_AT_ONCE = 100
_MAX_AT_ONCE = 2_000
_MAX_DIGITS = 6
_MAX_CHOICES = 200
_MAX_WORDS = 400
_CHANGES = ("add_tags", "remove_tags", "note", "thumb")


def listing(folder: Folder, asked: Mapping[str, str]) -> dict[str, Any]:
    """The runs of a folder that pass a query, and the figures of all of them.

    Args:
        folder: whose logs are listed.
        asked: the fields of a `Query`; `count`: how many rows; `plot`: with the points of the plot.

    Raises:
        ConfigError: a field cannot be.
    """
    query = Query.of({**asked, "descending": asked.get("descending") != "no"})
    every = folder.runs()
    found = query.select(every)
    return {
        "folder": str(folder.path),
        "count": len(every),
        "found": len(found),
        "cost": sum(run.summary.cost or 0 for run in found),
        "states": Counter(run.summary.state for run in found),
        "models": _choices(run.summary.model for run in every),
        "tags": _choices(tag for run in every for tag in run.notes.tags),
        "runs": [_row(run) for run in found[: _count(asked.get("count", ""))]],
        "points": _points(found) if "plot" in asked else None,
    }


def change_notes(folder: Folder, change: Any) -> None:
    """Change the notes of a run of the folder.

    Args:
        folder: only its runs can be changed.
        change: `name`, and the arguments of `annotate`; of any type.

    Raises:
        ConfigError, RecordingError: the run does not exist, or the change cannot be.
    """
    fields = change if isinstance(change, dict) else {}
    log = folder.log(str(fields.get("name")))
    if log is None:
        raise RecordingError(f"There is no log {fields.get('name')!r} in this folder.")
    given = {name: fields[name] for name in _CHANGES if fields.get(name) is not None}
    for name in ("add_tags", "remove_tags"):
        if not isinstance(given.get(name, []), list):
            raise ConfigError(f"{name} must be a list of tags.")
    annotate(log, **given)


def _row(run: Run) -> dict[str, Any]:
    row: dict[str, Any] = {column: run.value(column) for column in COLUMNS}
    words = {name: in_words(row[name][:_MAX_WORDS]) for name in ("question", "answer") if row[name]}
    return {**row, **words, "error": run.summary.error, "modified": run.summary.modified}


def _points(runs: Sequence[Run]) -> dict[str, Any]:
    """What the plot draws, column by column: the beginnings, seconds, costs, states and models as their numbers."""
    models = sorted({run.summary.model for run in runs})
    place = {model: number for number, model in enumerate(models)}
    return {
        "models": models,
        "began": [round(run.summary.began) for run in runs],
        "seconds": [run.summary.seconds for run in runs],
        "cost": [run.summary.cost for run in runs],
        "state": [STATES.index(run.summary.state) for run in runs],
        "model": [place[run.summary.model] for run in runs],
    }


def _choices(values: Any) -> list[str]:
    """The values that occur, the most frequent ones, in order."""
    return sorted(value for value, _ in Counter(filter(None, values)).most_common(_MAX_CHOICES))


def _count(text: str) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    return min(int(text), _MAX_AT_ONCE) if is_number else _AT_ONCE
