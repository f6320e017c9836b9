"""Amounts as a person says them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds as a person says them: `0.4 s`, `42 s`, `3 min 05 s`."""
    if seconds < 9.95:  # noqa: PLR2004 (below ten seconds the tenths matter)
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def tokens(sent: int, received: int) -> str:
    """Tokens of prompts and replies: `1,204 tokens in, 96 out`."""
    return f"{sent:,} tokens in, {received:,} out"
