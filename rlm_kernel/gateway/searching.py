"""The search tools: words ranked by BM25, and regular expressions that take linear time (RE2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from rlm_kernel.gateway import arguments, limits
from rlm_kernel.gateway.calls import CANARY_WARNING, Call
from rlm_kernel.gateway.index import Window, words_of
from rlm_kernel.gateway.reading import spec_of
from rlm_kernel.gateway.refusals import NotFoundError, RefusedError
from rlm_kernel.gateway.sessions import Span
from rlm_kernel.gateway.tree import Parts, digest, parts_of

MAX_SECONDS = 5.0
"""Of the scan of one regular expression."""
MAX_MATCHES = 1000
"""A scan that found so many lines stops, and these are ranked."""
MAX_CANDIDATES = 5000
"""Windows that are looked at for one query."""
_RE2_BYTES = 1 << 23


def query(call: Call, given: arguments.SearchQuery) -> dict[str, Any]:
    """Find lines by words."""
    in_scope = _scope(call, given.scope, given.include_patterns)
    call.services.index.bring_up_to_date()
    words = words_of(given.query)
    windows = (w for _, w in zip(range(MAX_CANDIDATES), call.services.index.search(given.query), strict=False))
    hits = _Hits(call, min(given.k, limits.MAX_RESULTS))
    for window in windows:
        if hits.is_full:
            break
        if in_scope(window.parts):
            hits.add(window, _best_line(window.content.split("\n"), words))
    return hits.result(truncated=False)


def regex(call: Call, given: arguments.SearchRegex) -> dict[str, Any]:
    """Find lines by a regular expression; files with more matches come first."""
    in_scope = _scope(call, given.scope, given.include_patterns)
    pattern = _compiled(given.pattern)
    index = call.services.index
    index.bring_up_to_date()
    rows, truncated = _matching_rows(index.scan(parts_of(given.scope), MAX_SECONDS), pattern)
    windows = [window for window in index.windows(rows) if in_scope(window.parts)]
    per_file = Counter(window.parts for window in windows)
    hits = _Hits(call, min(given.k, limits.MAX_RESULTS))
    for window in sorted(windows, key=lambda window: (-per_file[window.parts], window.parts, window.start)):
        for number, line in enumerate(window.content.split("\n")):
            if not hits.is_full and pattern.search(line.encode()):
                score = float(per_file[window.parts])
                hits.add(Window(window.parts, window.start + number, line, score), 0)
    return hits.result(truncated=truncated)


def _matching_rows(scan: Iterator[tuple[int, bytes] | None], pattern: Any) -> tuple[list[int], bool]:
    """The rows with a match, and whether the scan ended early."""
    rows: list[int] = []
    for piece in scan:
        if piece is None or len(rows) >= MAX_MATCHES:
            return rows, True
        row, content = piece
        if pattern.search(content):
            rows.append(row)
    return rows, False


def _compiled(pattern: str) -> Any:
    import re2

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


def _best_line(lines: list[str], words: set[str]) -> int:
    """The line that holds the most words."""
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

    def add(self, window: Window, shown: int) -> None:
        """Add a window, of which one line is shown."""
        lines = window.content.split("\n")
        try:
            text = self._call.tree.read(window.parts)
        except RefusedError:
            return
        start, end = window.start, window.start + len(lines) - 1
        if list(text.lines[start - 1 : end]) != lines:
            return
        snippet = lines[shown].strip()[: limits.SNIPPET_CHARACTERS]
        handle = self._call.session.file_handle(window.parts)
        content = snippet.encode()
        self._canary = self._canary or self._call.has_canary(snippet)
        at = start + shown
        self._call.spans.append(Span("search", handle, window.parts, at, at, digest(content), len(content)))
        about = {"path": "/".join(window.parts), "file_handle": handle, "start_line": start, "end_line": end}
        score = {"relevance_score": round(window.score, 4), "snippet": snippet, "snippet_hash": digest(content)}
        self._hits.append({**about, **score})

    def result(self, *, truncated: bool) -> dict[str, Any]:
        """Of the tool."""
        warning = CANARY_WARNING if self._canary else None
        return {"success": True, "results": self._hits, "truncated": truncated, "warning": warning}
