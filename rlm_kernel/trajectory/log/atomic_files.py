"""Write files atomically."""

from __future__ import annotations

import secrets
from pathlib import Path


def is_there(path: Path, content: bytes) -> bool:
    """Whether a file that is named after its content was written."""
    return path.is_file() and path.stat().st_size == len(content)


def write_whole(path: Path, content: bytes) -> None:
    """Write or replace a file atomically, with the permissions of the umask.

    Raises:
        OSError: it could not be written; an existing file is unchanged.
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
