"""A file that only grows, line by line: each line is written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from shutil import copyfileobj

from rlm_kernel.trajectory.log.signature import Chain, unsigned

SIGNATURE_BYTES = 80
"""At the end of a line, its newline included."""


class LineFile:
    """A file of lines. It is written again if it was removed: its content is still in the open file.

    Args:
        path: of the file; its folder is made when needed.
        key: to sign the lines with; None: they are not signed.

    Attributes:
        path: of the file.
        size: bytes of all lines so far.

    Raises:
        OSError: from any call: it could not be written.
    """

    def __init__(self, path: Path, key: bytes | None = None) -> None:
        self.path = path
        self.size = 0
        self._digest = hashlib.sha256()
        self._written = 0, self._digest.digest()
        self._chain = None if key is None else Chain(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        self._end = os.fstat(self._file.fileno()).st_size
        self._flaw: str | None = None

    @property
    def closed(self) -> bool:
        """Whether it takes no more lines."""
        return self._file.closed

    def close(self) -> None:
        """Close it. Idempotent."""
        self._file.close()

    def append(self, line: str) -> None:
        """Write a line whole, or not at all: then the file ends before it.

        Args:
            line: a JSON object in ASCII, without its newline.
        """
        encoded, size = line.encode("ascii"), os.fstat(self._file.fileno()).st_size
        left = memoryview((encoded if self._chain is None else self._chain.signed(encoded)) + b"\n")
        self._end = size + len(left)
        try:
            while left:
                left = left[self._file.write(left) :]
            self.size += len(encoded)
            self._digest.update(encoded)
            self._written = self.size, self._digest.digest()
        except OSError:
            self._end = size
            with suppress(OSError), self._file:
                self._file.truncate(size)
            raise

    def is_unchanged(self) -> bool:
        """Whether the path holds the lines that were written, signed or not. While it is open, there may be more."""
        (size, digest), found = self._written, hashlib.sha256()
        with self.path.open("rb") as file:
            while size > 0 and (raw := file.readline(size + SIGNATURE_BYTES)):
                line = unsigned(raw.removesuffix(b"\n"))
                found.update(line)
                size -= len(line)
            return found.digest() == digest and not (self.closed and file.read(1))

    def new_flaw(self) -> str | None:
        """What another program did to the file, as a sentence, when it is seen first; else None."""
        known = os.fstat(self._file.fileno())
        try:
            moved = not os.path.samestat(known, self.path.stat())
        except OSError:
            moved = True
        if self._flaw is not None or (not moved and known.st_size == self._end):
            return None
        self._flaw = (
            f"The log {self.path} was moved or replaced during the run. The run continues to write to the moved file: "
            "move it back to use it."
            if moved
            else f"The log {self.path} was changed by another program during the run. What it removed is lost."
        )
        return self._flaw

    def restore(self) -> bool:
        """Write the file again if it was removed. Returns whether it was."""
        if os.fstat(self._file.fileno()).st_nlink:
            return False
        removed = self._file
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b", buffering=0)
        with removed:
            removed.seek(0)
            copyfileobj(removed, self._file)
        return True
