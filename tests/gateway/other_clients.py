"""Clients of MCP that are installed apart from the tests' own packages, into .cache by .ci/full."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CACHE = Path(__file__).resolve().parents[2] / ".cache"


def installed(file):
    """A file below .cache. In CI it must be there."""
    path = CACHE / file
    if not path.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{path} is missing: .ci/full installs it")
    return str(path)
