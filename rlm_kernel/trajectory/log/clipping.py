"""Shorten the lines of a log that has used up its quota.

Sub-calls and their answers are no longer written. In the other lines long texts are cut, and a field marks the line: a
replay must not take them for the original texts.
"""

from __future__ import annotations

from typing import Any

from rlm_kernel.text import clip

KEPT = frozenset({
    "metadata", "context", "kernel_ready", "asked", "reply", "cell", "cell_result", "iteration", "summary", "notice",
    "finished", "failed", "message", "message_end",
})  # fmt: skip
"""The types of the lines that are still written."""

LAST = frozenset({"finished", "failed"})
"""The types that are written even if the quota has no room."""

CHARACTERS = 1_000
"""Of a text."""
ITEMS = 100
"""Of a list or an object."""

MARK = "clipped"
"""The field that marks a clipped line."""

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
