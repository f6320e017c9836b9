"""The trail: one line on disk for each call, written before its result leaves.

Lines are appended, and each carries the MAC of itself and all lines before it, as the log of a run does. The trail of a
gateway that was killed is valid up to its last line.
"""

from __future__ import annotations

import copy
import json
import os
import secrets
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlm_kernel.errors import ConfigError, RecordingError
from rlm_kernel.trajectory.log.signature import Chain, key
from rlm_kernel.untrusted.json_text import read_file

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_BYTES = 1 << 32


class Trail:
    """Appends to a new file.

    Args:
        folder: where the file is made.

    Raises:
        ConfigError: the file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        now = datetime.now(UTC)
        self.path = folder / f"gateway-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._chain = Chain(key())
            self._fd = os.open(self.path, _FLAGS, 0o600)
        except OSError as error:
            raise ConfigError(f"The trail cannot be written to {folder} ({error}): use --data-dir.") from error
        self._lock = threading.Lock()
        self.write({"kind": "gateway", "version": 1, "process": os.getpid()})

    def write(self, record: dict[str, Any]) -> None:
        """Append a record.

        Raises:
            OSError: it could not be written; the result of the call must not leave then.
        """
        line = json.dumps({"time": datetime.now(UTC).isoformat(), **record}, ensure_ascii=True).encode()
        with self._lock:
            chain = copy.copy(self._chain)
            signed = chain.signed(line) + b"\n"
            size = os.fstat(self._fd).st_size
            if (written := os.write(self._fd, signed)) != len(signed):
                os.ftruncate(self._fd, size)  # the next line would continue this one
                raise OSError(f"the disk is full: {written} of {len(signed)} bytes")
            self._chain = chain

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


@dataclass(frozen=True)
class Audit:
    """What a trail says.

    Attributes:
        flaw: the first problem, or None.
        calls: how many calls it records, without those that were refused.
        refused: how many were refused or cancelled.
        output_bytes: how many bytes left, those of refusals too.
        is_cut: whether its last line is incomplete: the gateway was killed while writing it.
    """

    path: Path
    flaw: str | None
    calls: int
    refused: int
    spans: int
    output_bytes: int
    is_cut: bool


def audit(path: Path) -> Audit:
    """Verify a trail with the key of this user.

    Raises:
        RecordingError: it cannot be read.
    """
    try:
        chain, (*lines, rest) = Chain(key()), read_file(path, _MAX_BYTES).split(b"\n")
    except (OSError, ValueError) as error:
        raise RecordingError(f"The trail {path} cannot be read: {error}.") from error
    records: list[dict[str, Any]] = []
    flaw = None if lines else "it is empty"
    for number, line in enumerate(lines, 1):
        if not chain.holds(line):
            flaw = f"line {number} was changed, removed or added, or was not written by you"
            break
        records.append(json.loads(line))
    calls = [record for record in records if record.get("kind") == "call"]
    refused = sum(record.get("kind") == "refused" for record in records)
    spans = sum(len(call["spans"]) for call in calls)
    size = sum(record["bytes"] for record in records if "bytes" in record)
    return Audit(path, flaw, len(calls), refused, spans, size, bool(rest))
