"""Directories and files of this machine that a contained kernel sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from traitlets import TraitError


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory or file, and where the kernel sees it."""

    source: str
    target: str
    writable: bool = False


def mounts_of(asked: Mapping[str, str]) -> list[Mount]:
    """The `mounts` of the options: path here to path there, which may end with ``:ro`` or ``:rw``."""
    found = []
    for here, there in asked.items():
        target, _, mode = there.partition(":")
        if mode not in ("", "ro", "rw"):
            raise TraitError(f"{there!r}: after the path comes nothing, ':ro' or ':rw'.")
        found.append(Mount(str(Path(here).expanduser().absolute()), target, mode == "rw"))
    return found
