"""What is read of a message that is too large: a kernel may send any amount, and the host has to stay small.

Parsed JSON takes up to thirty times the room of its text, a long text two or three times. So before a large message is
parsed its room is estimated: of a stream its two ends are read, of everything else a word that says how large it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

ALWAYS_READ = 2_000_000
"""Bytes of a message that is parsed without a look."""

MOST_ROOM = 160_000_000
"""Bytes that a parsed message may take."""

UNREAD = "unread"
"""The key under which a stream's content says how many of its bytes were not read. Only we write it."""

_ITEM_ROOM = 64
_STREAM_HEAD = 8_000_000
_STREAM_TAIL = 2_000_000
_LONGEST_ESCAPE = 12


def content_of(kind: str, content: bytes) -> Any:
    """The content of a message, or what stands in for it.

    Args:
        kind: the type of the message.
        content: its JSON.

    Raises:
        ValueError: it is no JSON, or nothing can stand in for it.
        KeyError, TypeError: it is no content of this type.
    """
    small = len(content) <= ALWAYS_READ
    try:
        if not small and kind == "stream" and len(content) > _STREAM_HEAD + _STREAM_TAIL:
            return _two_ends(content)
        if small or _room(content) <= MOST_ROOM:
            return _parsed(content)
    except RecursionError:
        return _stand_in(kind, "This is nested too deeply to be read.")
    return _stand_in(kind, f"This has {len(content):,} bytes, too many to be read.")


def _parsed(content: bytes) -> Any:
    """The JSON, without a claim that something of it was not read: whoever sent it cannot know."""
    value = json.loads(content)
    if isinstance(value, dict):
        value.pop(UNREAD, None)
    return value


def _room(content: bytes) -> int:
    """What it may take when it is parsed; each value follows a comma or a bracket."""
    length = len(content)
    if 2 * length > MOST_ROOM:
        return 2 * length
    return 2 * length + _ITEM_ROOM * sum(map(content.count, (b",", b"[", b"{")))


def _two_ends(content: bytes) -> dict[str, Any]:
    """A stream without the middle of its text. The cuts may fall into an escape sequence, or into a character."""
    head = _first_that_is_json(content[: _STREAM_HEAD - cut] + b'"}' for cut in range(_LONGEST_ESCAPE))
    tail = _first_that_is_json(b'{"text": "' + content[cut - _STREAM_TAIL :] for cut in range(_LONGEST_ESCAPE))
    unread = len(content) - _STREAM_HEAD - _STREAM_TAIL
    gap = f"\n… {unread:,} bytes were left out here …\n"
    return {"name": head["name"], "text": f"{head['text']}{gap}{tail['text']}", UNREAD: unread}


def _first_that_is_json(texts: Iterable[bytes]) -> dict[str, Any]:
    for text in texts:
        with suppress(ValueError):
            return dict(json.loads(text))
    raise ValueError("not a stream")


def _stand_in(kind: str, why: str) -> dict[str, Any]:
    """A content of the same type that says so instead."""
    if kind in ("display_data", "execute_result"):
        return {"data": {"text/plain": f"({why})"}, "metadata": {}, "execution_count": 0}
    if kind in ("error", "execute_reply"):
        return {"status": "error", "ename": "Oversized", "evalue": why, "traceback": [f"Oversized: {why}"]}
    raise ValueError(why)
