"""The context of the demo: the source of the running Python's standard library."""

from __future__ import annotations

import sysconfig
from pathlib import Path

ENOUGH_CHARACTERS = 10_000_000
_FOREIGN = {"site-packages", "dist-packages", "__pycache__"}
_TESTS = {"test", "tests", "idle_test"}


def standard_library(root: Path | None = None) -> dict[str, str]:
    """Path to source of every module; the library's own tests only where the rest is not enough.

    Args:
        root: the folder of the library; that of the running Python when None.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    paths = [path.relative_to(root) for path in sorted(root.rglob("*.py"))]
    paths = [path for path in paths if _FOREIGN.isdisjoint(path.parts)]
    modules = _sources(root, [path for path in paths if _TESTS.isdisjoint(path.parts)])
    if sum(map(len, modules.values())) >= ENOUGH_CHARACTERS:
        return modules
    return modules | _sources(root, [path for path in paths if not _TESTS.isdisjoint(path.parts)])


def _sources(root: Path, paths: list[Path]) -> dict[str, str]:
    sources = {path.as_posix(): _source(root / path) for path in paths}
    return {path: source for path, source in sources.items() if source is not None}


def _source(path: Path) -> str | None:
    """The text, or None for the few files that are in another encoding, on purpose, to test the tokenizer."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        return None
