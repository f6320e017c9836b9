"""Compare a run with its replay, cell by cell: logs, trajectories and notebooks in any combination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlm_kernel.trajectory.notebook.build import notebook_of, runs
from rlm_kernel.trajectory.notebook.cells import CUT_OFF, is_cut_off
from rlm_kernel.trajectory.notebook.normaliser import as_text, unified
from rlm_kernel.trajectory.tree import Trajectory


@dataclass(frozen=True)
class Difference:
    """How a cell of a replay differs from the run. `what`: ``missing``, ``source`` or ``outputs``."""

    cell: int
    what: str
    recorded: str
    replayed: str

    @property
    def diff(self):
        return "\n".join(unified(self.recorded, self.replayed))


def differences(recorded, replayed):
    """The differences of two recordings, trajectories or notebooks. Cells that were cut off are not compared."""
    after = {number: (source, outputs) for number, source, outputs, _ in cells_of(replayed)}
    found = []
    for number, source, outputs, cut_off in cells_of(recorded):
        if number not in after:
            found.append(Difference(number, "missing", source, ""))
            continue
        other_source, other_outputs = after[number]
        if source != other_source:
            found.append(Difference(number, "source", source, other_source))
        if not cut_off and (texts := (as_text(outputs), as_text(other_outputs)))[0] != texts[1]:
            found.append(Difference(number, "outputs", *texts))
    return found


def cells_of(recorded):
    """Number, source and outputs of each cell of the run, and whether it was cut off."""
    if isinstance(recorded, Mapping):
        for cell in recorded["cells"]:
            about = cell.get("metadata", {}).get("rlm", {})
            if cell["cell_type"] == "code" and about.get("role") == "code":
                cut_off = CUT_OFF in cell["metadata"].get("tags", [])
                yield about["cell"], "".join(cell["source"]), cell["outputs"], cut_off
        return
    for one in (recorded if isinstance(recorded, Trajectory) else recorded.trajectory).cells:
        yield one.number, one.code, [] if one.result is None else one.result.outputs, is_cut_off(one)


def notebooks_of(trajectory, about):
    """The notebooks of a run and of all runs below it, the root first, by file name."""
    return {described.file: notebook_of(run, described) for run, described in runs(trajectory, about)}
