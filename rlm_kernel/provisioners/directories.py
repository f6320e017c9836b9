"""Private directories for sockets and connection files: who cannot enter them cannot connect."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

LONGEST_BASE = 80


def private_directory() -> Path:
    """A new 0700 directory with a short path: an ipc path ends at 107 bytes on Linux, at 103 on macOS."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > LONGEST_BASE and os.access("/tmp", os.W_OK):  # noqa: S108 (mkdtemp makes it safe)
        base = "/tmp"  # noqa: S108
    return Path(tempfile.mkdtemp(prefix="rlm-", dir=base))
