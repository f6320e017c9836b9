"""The notebook of a run in progress: the cells of a turn that is over are made once and kept on disk.

So memory and the work of a turn do not depend on how many turns there were before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rlm_kernel.trajectory.notebook.build import (
    Earlier,
    Redact,
    RunIdentity,
    end_of,
    load_nbformat,
    opening_of,
    turns_of,
    valid,
)
from rlm_kernel.trajectory.notebook.cells import NotebookCell
from rlm_kernel.trajectory.tree import Trajectory

_PIECE_BYTES = 1 << 20


class GrowingNotebook:
    """The notebook of a run so far. It has the same bytes as that which `notebook_of` makes of the whole run.

    Args:
        redact: applied to every text.
        folder: of the notebook; the file for its earlier cells has no name there.

    Raises:
        OSError: from any call: the earlier cells could not be written or read.
    """

    def __init__(self, redact: Redact | None, folder: Path) -> None:
        self._redact = redact
        self._folder = folder
        self._earlier = Earlier()
        self._ids: set[str] = set()
        self._cells: Any = None

    def close(self) -> None:
        """Remove the file of the earlier cells."""
        if self._cells is not None:
            self._cells.close()

    def add(self, past: Trajectory, identity: RunIdentity) -> None:
        """Add the cells of turns that are over. `past`: see `Trajectory.take_past`."""
        cells = list(turns_of(past, identity, self._redact, self._ids))
        self._earlier = self._earlier.plus(past, identity)
        if self._cells is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._cells = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (`close` does it)
        self._cells.write(_json(cells, {})[1] + b",")

    def pieces(self, run: Trajectory, identity: RunIdentity) -> Iterator[bytes]:
        """The file of the notebook in pieces. `run`: without the turns that were added."""
        ids = set(self._ids)
        opening = _json(opening_of(run, identity, self._redact, ids), {})[1]
        end, metadata = end_of(run, identity, self._redact, ids, self._earlier)
        start, cells, rest = _json([*turns_of(run, identity, self._redact, ids), *end], metadata)
        yield from (start, opening, b",")
        if self._cells is not None:
            self._cells.seek(0)
            yield from iter(partial(self._cells.read, _PIECE_BYTES), b"")
        yield from (cells, rest)


def _json(cells: Iterable[NotebookCell], metadata: dict[str, Any]) -> tuple[bytes, bytes, bytes]:
    """A notebook as nbformat writes it: what is before its cells, the cells, and what is after them."""
    nbformat = load_nbformat()
    start, rest = nbformat.writes(valid([], metadata)).split("[]", 1)
    start, rest = f"{start}[", f"\n ]{rest}"
    text: str = nbformat.writes(valid([*cells], metadata))
    return start.encode(), text[len(start) : -len(rest)].encode(), rest.encode()
