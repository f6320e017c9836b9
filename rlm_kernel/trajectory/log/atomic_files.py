"""Write files atomically."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def is_there(path: Path, size: int) -> bool:
    """Whether a file that is named after its content was written. `size`: of the content, in bytes."""
    return path.is_file() and path.stat().st_size == size


def write_whole(path: Path, content: bytes) -> None:
    """Write or replace a file atomically, with the permissions of the umask.

    Raises:
        OSError: it could not be written; an existing file is unchanged.
    """
    write_pieces(path, [content])


def write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    """`write_whole` with content that is made piece by piece.

    Raises:
        OSError: it could not be written; an existing file is unchanged.
    """
    with _whole(path) as part, part.open("xb") as file:
        file.writelines(pieces)


def copy_whole(path: Path, source: Path) -> None:
    """`write_whole` with the content of another file, which the system copies.

    Raises:
        OSError: it could not be copied.
    """
    with _whole(path) as part:
        shutil.copyfile(source, part)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A new name in the folder of a file. What is written there replaces the file at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield part
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
