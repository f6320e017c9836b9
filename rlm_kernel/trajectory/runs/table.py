"""The runs of a folder as a table: a DataFrame where pandas is installed, else a list of dicts."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlm_kernel.errors import ConfigError
from rlm_kernel.trajectory.runs.index import Index, usual_folder
from rlm_kernel.trajectory.runs.notes import Thumb, read_notes
from rlm_kernel.trajectory.runs.query import COLUMNS, Column, Query, Run, runs_with_notes
from rlm_kernel.trajectory.states import State


def runs(
    folder: str | os.PathLike[str] | None = None,
    *,
    search: str = "",
    model: str = "",
    state: State | None = None,
    tag: str = "",
    thumb: Thumb | None = None,
    since: str | date | float | None = None,
    until: str | date | float | None = None,
    min_cost: float | None = None,
    max_cost: float | None = None,
    sort: Column = "began",
    descending: bool = True,
) -> Any:
    """The runs that were logged in a folder.

    Args:
        folder: of the logs; None: ``./rlm_logs``, or ``./logs`` where that does not exist.
        search: words; each has to be in the question, the answer, the error, the name, the model, a tag or the note.
        model: a part of the name of the root model.
        state: ``"running"``, ``"answered"``, ``"stopped"``, ``"limit"``, ``"failed"`` or ``"lost"``.
        tag: that a run must have, see `annotate`.
        thumb: ``"up"`` or ``"down"``.
        since: the earliest beginning, as a date or a time.
        until: the latest beginning; a date includes the day.
        min_cost: US dollars. A run whose cost is unknown does not pass.
        max_cost: US dollars.
        sort: a column.
        descending: whether the largest value comes first. A run without one comes last.

    Returns:
        A `pandas.DataFrame`, or without pandas a list of dicts. Each row has the columns of `sort`, `error`, and `log`,
        the path of the log. `began` is a time in UTC, `seconds` the duration, `cost` in US dollars, `size` in bytes.

    Raises:
        ConfigError: there is no such folder, or an argument cannot be.
    """
    asked = {"search": search, "model": model, "state": state, "tag": tag, "thumb": thumb, "since": since}
    asked |= {"until": until, "min_cost": min_cost, "max_cost": max_cost, "sort": sort, "descending": descending}
    where = usual_folder() if folder is None else Path(folder)
    records = [record_of(run, where) for run in runs_in(where, Query.of(asked))]
    if find_spec("pandas") is None:
        return records
    import pandas as pd

    table = pd.DataFrame(records, columns=["log", *COLUMNS, "error"])
    return table.astype({"cost": float, "seconds": float})  # they are None in all rows where none is known


def runs_in(folder: Path, query: Query) -> list[Run]:
    """The runs of a folder that pass a query, in its order.

    Raises:
        ConfigError: there is no such folder.
    """
    try:
        found = Index(folder).summaries()
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read: {error.strerror}. Name a folder of logs.") from error
    return query.select(runs_with_notes(found, read_notes(folder)))


def record_of(run: Run, folder: Path) -> dict[str, Any]:
    """A run as a row."""
    record = {"log": str(folder / run.summary.name)} | {column: run.value(column) for column in COLUMNS}
    began = datetime.fromtimestamp(run.summary.began, UTC)
    return {**record, "began": began, "tags": list(run.notes.tags), "error": run.summary.error}
