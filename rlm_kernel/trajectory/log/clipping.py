"""Lines of a log that has used up its quota: who reads it learns what happened, and not all that was said.

What a sub-call was asked and answered is not kept any more. Of the rest long texts are cut, and the line says so: who
replays or resumes the run must not take them for what they were.
"""

from __future__ import annotations

from typing import Any

from rlm_kernel.text import clip

KEPT = frozenset({
    "metadata", "context", "kernel_ready", "asked", "reply", "cell", "cell_result", "iteration", "summary", "notice",
    "finished", "failed",
})  # fmt: skip
"""The types of the lines that are still written."""

LAST = frozenset({"finished", "failed"})
"""Those that are written in any case."""

CHARACTERS = 1_000
"""What is kept of a text."""
ITEMS = 100
"""What is kept of a list or an object."""

MARK = "clipped"
"""The field that says so."""

_WORDS = ("text/plain", "text/markdown")


def clipped(line: dict[str, Any]) -> dict[str, Any]:
    """A line with its long texts, lists and objects cut."""
    return {**_cut(line), MARK: True}


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return clip(value, CHARACTERS)
    if isinstance(value, list):
        return [_cut(item) for item in value[:ITEMS]]
    if isinstance(value, dict):
        # A part of a picture, or of any other encoded output, could not be shown.
        kept = {key: held for key, held in value.items() if "/" not in key or key in _WORDS or not _is_long(held)}
        return {key: _cut(held) for key, held in list(kept.items())[:ITEMS]}
    return value


def _is_long(value: Any) -> bool:
    return isinstance(value, str) and len(value) > CHARACTERS
