"""What differs from the reference on purpose: `reference_differences.toml`, checked against docs/migration.md."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

HERE = Path(__file__).parent
DECLARED = HERE / "reference_differences.toml"
PAGE = HERE.parent / "docs" / "migration.md"
_ANCHOR = re.compile(r'<a id="([\w-]+)">')
_FILE = re.compile(r"[^:#]*")
_SPECIAL = re.compile(r"\[")


def anchors(page: Path = PAGE) -> set[str]:
    """The anchors of the page."""
    return set(_ANCHOR.findall(page.read_text("utf-8")))


def declared(file: Path = DECLARED) -> dict[str, str]:
    """The patterns of what differs, each with its anchor.

    Raises:
        ValueError: an anchor is not on the page, or a pattern is there twice.
    """
    known, found = anchors(), dict[str, str]()
    for anchor, patterns in tomllib.loads(file.read_text("utf-8")).items():
        if anchor not in known:
            raise ValueError(f"{file.name}: {PAGE.name} has no row with the anchor {anchor!r}")
        for pattern in patterns:
            if pattern in found:
                raise ValueError(f"{file.name}: {pattern!r} is there twice")
            found[pattern] = anchor
    return found


@dataclass
class Report:
    """Counts what holds, what differs on purpose, and what fails."""

    differences: dict[str, str] = field(default_factory=declared)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    _used: set[str] = field(default_factory=set)

    def add(self, name: str, outcome: str, why: str = "") -> None:
        """Count one of them. `outcome`: ``"passed"``, ``"failed"`` or ``"skipped"``. `why`: the last words."""
        pattern = next((each for each in self.differences if fnmatchcase(name, _SPECIAL.sub("[[]", each))), None)
        if outcome == "failed" and pattern is not None:
            self._used.add(pattern)
            self.counts[f"differs on purpose: migration.md#{self.differences[pattern]}"] += 1
            return
        self.counts["holds" if outcome == "passed" else outcome] += 1
        if outcome == "failed":
            self.problems.append(f"FAILS {name}: {why}")
        elif outcome == "passed" and pattern is not None:
            self.problems.append(f"HOLDS, although it is declared to differ ({self.differences[pattern]}): {name}")

    def lines(self, files: Iterable[str]) -> Iterator[str]:
        """The report. `files`: those that ran; their patterns that nothing matched are reported."""
        yield from self.problems
        ran = tuple(files)
        for pattern in sorted(self.differences.keys() - self._used):
            if _FILE.match(pattern)[0] in ran:
                yield f"NOTHING DIFFERS as {pattern!r} declares ({self.differences[pattern]})"
        on_purpose = sum(count for kind, count in self.counts.items() if kind.startswith("differs"))
        for kind, count in self.counts.most_common():
            yield f"{count:4}  {kind}"
        yield f"{self.counts['holds'] + on_purpose:4}  hold or differ on purpose, of {self.counts.total()}"

    @property
    def is_good(self) -> bool:
        """Whether nothing fails that is not declared."""
        return not self.problems
