"""The search tools: words ranked by BM25, and regular expressions that take linear time (RE2)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import re2

from rlm_kernel.gateway import arguments, limits
from rlm_kernel.gateway.calls import CANARY_WARNING, Call
from rlm_kernel.gateway.index import words_of
from rlm_kernel.gateway.reading import spec_of
from rlm_kernel.gateway.refusals import NotFoundError, RefusedError
from rlm_kernel.gateway.sessions import Span
from rlm_kernel.gateway.tree import Parts, digest, parts_of

MAX_SECONDS = 5.0
"""Of the scan of one regular expression."""
MAX_FILES = 1000
"""A scan that found so many files stops, and these are ranked."""
MAX_COUNTED = 1000
"""Matching lines of one file that count for its rank."""
_RE2_BYTES = 1 << 23


@dataclass(frozen=True)
class Place:
    """Lines that may be a result. `score`: higher is better."""

    parts: Parts
    start: int
    end: int
    score: float


def query(call: Call, given: arguments.SearchQuery) -> dict[str, Any]:
    """Find lines by words."""
    in_scope = _scope(call, given.scope, given.include_patterns)
    index = call.services.index
    index.bring_up_to_date()
    words = words_of(given.query)
    hits = _Hits(call, min(given.k, limits.MAX_RESULTS))
    for window in index.search(given.query, in_scope):
        place = Place(window.parts, window.start, window.start + len(window.lines) - 1, window.score)
        hits.add(place, functools.partial(_best_line, window.lines, words))
        if hits.is_full:
            break
    return hits.result(truncated=not index.is_built)


def regex(call: Call, given: arguments.SearchRegex) -> dict[str, Any]:
    """Find lines by a regular expression; files with more matching lines come first."""
    in_scope = _scope(call, given.scope, given.include_patterns)
    pattern = _compiled(given.pattern)
    index = call.services.index
    index.bring_up_to_date()
    scan = index.scan(lambda text: pattern.search(text) is not None, parts_of(given.scope), in_scope, MAX_SECONDS)
    found = [piece and _matching_lines(*piece, pattern) for piece in itertools.islice(scan, MAX_FILES)]
    truncated = not index.is_built or len(found) == MAX_FILES or None in found
    places = itertools.chain.from_iterable(filter(None, found))
    hits = _Hits(call, min(given.k, limits.MAX_RESULTS))
    for place in sorted(places, key=lambda place: (-place.score, place.parts, place.start)):
        if hits.is_full:
            break
        hits.add(place, lambda lines: 0 if pattern.search(lines[0].encode()) else None)
    return hits.result(truncated=truncated)


def _matching_lines(parts: Parts, content: bytes, pattern: Any) -> list[Place]:
    """The first lines of a file that match; the score is how many do."""
    numbers = (number for number, line in enumerate(content.split(b"\n"), 1) if pattern.search(line))
    counted = list(itertools.islice(numbers, MAX_COUNTED))
    return [Place(parts, number, number, float(len(counted))) for number in counted[: limits.MAX_RESULTS]]


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.max_mem = _RE2_BYTES
    options.log_errors = False
    try:
        return re2.compile(f"(?m){pattern}".encode(), options)
    except re2.error as error:
        why = error.args[0] if error.args else ""
        said = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise RefusedError(f"Invalid regex pattern: {said[:200]}") from None


def _scope(call: Call, scope: str, patterns: list[str] | None) -> Callable[[Parts], bool]:
    """Whether a path is in the scope, below an allowed root, and fits the patterns."""
    below = call.allowed(parts_of(scope))
    if not call.tree.is_folder(below):
        raise NotFoundError("Not a directory: the scope names no folder that can be searched")
    spec = spec_of(patterns) if patterns else None
    return lambda parts: parts[: len(below)] == below and (spec is None or bool(spec.match_file("/".join(parts))))


def _best_line(indexed: tuple[str, ...], words: set[str], lines: tuple[str, ...]) -> int | None:
    """The line that holds the most words, or None if these are not the lines that were indexed."""
    if lines != indexed:
        return None
    return max(range(len(lines)), key=lambda number: sum(word in lines[number].lower() for word in words))


class _Hits:
    """Collects results. A hit whose file has changed since, or may not be read any more, is left out."""

    def __init__(self, call: Call, most: int) -> None:
        self._call = call
        self._most = most
        self._hits: list[dict[str, Any]] = []
        self._canary = False

    @property
    def is_full(self) -> bool:
        """Whether there are enough."""
        return len(self._hits) >= self._most

    def add(self, place: Place, pick: Callable[[tuple[str, ...]], int | None]) -> None:
        """Add a place.

        Args:
            place: where the index says it is.
            pick: which of the lines that are there is shown, counted from 0; None: the index is out of date.
        """
        try:
            lines = self._call.tree.read(place.parts).lines[place.start - 1 : place.end]
        except RefusedError:
            return
        shown = pick(lines) if len(lines) == place.end - place.start + 1 else None
        if shown is None:
            return
        snippet = lines[shown].strip()[: limits.SNIPPET_CHARACTERS]
        handle = self._call.session.file_handle(place.parts)
        content = snippet.encode()
        self._canary = self._canary or self._call.has_canary(snippet)
        at = place.start + shown
        self._call.spans.append(Span("search", handle, place.parts, at, at, digest(content), len(content)))
        self._hits.append(
            {
                "path": "/".join(place.parts),
                "file_handle": handle,
                "start_line": place.start,
                "end_line": place.end,
                "relevance_score": round(place.score, 4),
                "snippet": snippet,
                "snippet_hash": digest(content),
            }
        )

    def result(self, *, truncated: bool) -> dict[str, Any]:
        """Of the tool."""
        warning = CANARY_WARNING if self._canary else None
        return {"success": True, "results": self._hits, "truncated": truncated, "warning": warning}
