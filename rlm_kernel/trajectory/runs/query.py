"""Which runs of a folder are listed, and in which order: for the viewer, `rlm runs` and `rlm.runs` alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime, time
from pathlib import PurePath
from typing import Any, Literal, get_args

from rlm_kernel.errors import ConfigError
from rlm_kernel.text import suggestion
from rlm_kernel.trajectory.log.file_names import stem_of
from rlm_kernel.trajectory.runs.notes import THUMBS, Notes
from rlm_kernel.trajectory.runs.summary import Summary
from rlm_kernel.trajectory.states import STATES

Column = Literal["name", "state", "began", "question", "answer", "model", "environment", "seconds", "turns", "calls",
                 "tokens", "cost", "size", "thumb", "tags", "note"]  # fmt: skip
COLUMNS: tuple[Column, ...] = get_args(Column)
"""What a list may show and be sorted by."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run in a list: its summary, and what people say about it."""

    summary: Summary
    notes: Notes = field(default_factory=Notes)

    def value(self, column: str) -> Any:
        """The value of one of `COLUMNS`."""
        return getattr(self.notes if column in ("tags", "note", "thumb") else self.summary, column)

    @property
    def words(self) -> str:
        """All texts in which a search looks, in lower case."""
        one = self.summary
        texts = (one.question, one.answer, one.error, one.model, one.name, one.state, self.notes.note, *self.notes.tags)
        return "\n".join(filter(None, texts)).casefold()


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A search in a list of runs. A run that has no value for a limit does not pass it.

    Attributes:
        search: words; each has to be in the question, the answer, the error, the name, the model, a tag or the note.
        model, state, tag, thumb: what a run must have. `model` may be a part of the name.
        since, until: of the beginning, in seconds since 1970.
        min_cost, max_cost: US dollars.
        sort: one of `COLUMNS`.
        descending: whether the largest comes first. A run without a value comes last.
    """

    search: str = ""
    model: str = ""
    state: str = ""
    tag: str = ""
    thumb: str = ""
    since: float | None = None
    until: float | None = None
    min_cost: float | None = None
    max_cost: float | None = None
    sort: str = "began"
    descending: bool = True

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Query:
        """The query of some fields, as texts or as values; None and empty texts are left out.

        Raises:
            ConfigError: a value cannot be. The message names what is allowed.
        """
        known = {key: value for key, value in given.items() if value is not None and value != ""}
        for key, allowed in (("state", STATES), ("thumb", THUMBS), ("sort", COLUMNS)):
            if known.get(key, allowed[0]) not in allowed:
                meant = suggestion(str(known[key]), allowed)
                raise ConfigError(f"{key} {known[key]!r} does not exist{meant} Choose from: {', '.join(allowed)}.")
        for key in known.keys() & {"since", "until"}:
            known[key] = _moment(key, known[key])
        for key in known.keys() & {"min_cost", "max_cost"}:
            known[key] = _dollars(key, known[key])
        for key in known.keys() & {"search", "model", "tag"}:
            known[key] = str(known[key])
        return cls(**{name: known[name] for name in _NAMES if name in known})

    def select(self, runs: Iterable[Run]) -> list[Run]:
        """The runs that pass, in order."""
        words = self.search.casefold().split()
        found = [run for run in runs if self._passes(run, words)]
        valued = [run for run in found if run.value(self.sort) not in (None, "", ())]
        missing = [run for run in found if run.value(self.sort) in (None, "", ())]
        return [*sorted(valued, key=self._key, reverse=self.descending), *missing]

    def _key(self, run: Run) -> Any:
        value = run.value(self.sort)
        if self.sort == "state":
            return STATES.index(value)
        return value.casefold() if isinstance(value, str) else value

    def _passes(self, run: Run, words: list[str]) -> bool:
        one, notes = run.summary, run.notes
        if (self.state and one.state != self.state) or (self.thumb and notes.thumb != self.thumb):
            return False
        if self.tag and self.tag not in notes.tags:
            return False
        if self.model and self.model.casefold() not in one.model.casefold():
            return False
        if not _within(one.began, self.since, self.until) or not _within(one.cost, self.min_cost, self.max_cost):
            return False
        if not words:
            return True
        text = run.words
        return all(word in text for word in words)


_NAMES = frozenset(one.name for one in fields(Query))


def runs_with_notes(summaries: Iterable[Summary], notes: Mapping[str, Notes]) -> list[Run]:
    """The runs of a list."""
    return [Run(one, notes.get(stem_of(PurePath(one.name)), Notes())) for one in summaries]


def _within(value: float | None, least: float | None, most: float | None) -> bool:
    if least is None and most is None:
        return True
    return value is not None and (least is None or value >= least) and (most is None or value <= most)


def _moment(key: str, value: Any) -> float:
    """Seconds since 1970 of a date or a time; of a date, the beginning of the day for `since`, the end for `until`."""
    if isinstance(value, int | float):
        return float(value)
    try:
        if isinstance(value, str):
            value = date.fromisoformat(value) if len(value) <= len("2026-11-30") else datetime.fromisoformat(value)
        if not isinstance(value, datetime):
            value = datetime.combine(value, time.max if key == "until" else time.min)
        return float(value.timestamp())
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{key} {value!r} is not a date: give one such as 2026-11-30 or 2026-11-30T09:00.") from error


def _dollars(key: str, value: Any) -> float:
    try:
        dollars = float(value)
    except (TypeError, ValueError):
        dollars = math.nan
    if not math.isfinite(dollars):
        raise ConfigError(f"{key} {value!r} is not a number: give US dollars, such as 0.05.")
    return dollars
