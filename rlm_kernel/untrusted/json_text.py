"""Read JSON that is not trusted: the file may be of any type and size, and nested to any depth.

Every problem is a `ValueError`, or an `OSError` if the file cannot be read.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from stat import S_ISREG
from typing import Any

MAX_DEPTH = 200
"""Maximum nesting of lists and objects. Recursive readers need a few calls for each level."""

MAX_FILE_BYTES = 10_000_000


def loads(text: str | bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, or nested deeper than `max_depth`.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if _is_deeper(value, max_depth):
        raise ValueError("it is nested too deeply")
    return value


def load(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> Any:
    """The value of a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file, larger than `max_bytes`, not UTF-8, not JSON, or nested too deeply.
    """
    return loads(read_file(path, max_bytes).decode("utf-8"))


def read_file(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file. Does not wait for a pipe or a device.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file, or larger than `max_bytes`.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes:,} bytes")
    return content


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [item for one in level for item in _containers(one)]
    return any(isinstance(one, dict | list) for one in level)


def _containers(value: Any) -> list[Any]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict | list)]
