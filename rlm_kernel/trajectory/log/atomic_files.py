"""Write files atomically."""

from __future__ import annotations

import secrets
from pathlib import Path


def is_there(path: Path, content: bytes) -> bool:
    """Whether a file that is named after its content has been written."""
    return path.is_file() and path.stat().st_size == len(content)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is whole, or not there; one that was there before is replaced. The umask says who reads it.

    Raises:
        OSError: it could not be written; a file that was there before still is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
