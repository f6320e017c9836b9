"""The notebook of a run, or of one of its children, made again from the log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlm_kernel.errors import RecordingError
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.trajectory.notebook.build import identity_of_recording, notebook_of, runs


def notebook_again(log: Path, child: Sequence[Any] = ()) -> dict[str, Any]:
    """The notebook; empty if the log cannot be read, or holds no such child.

    Args:
        log: the record.
        child: `metadata.rlm.child` of its notebook.
    """
    try:
        recording = read_log(log)
    except RecordingError:
        return {}
    for run, identity in runs(recording.trajectory, identity_of_recording(recording)):
        if [list(place) for place in identity.child] == [list(place) for place in child]:
            return dict(notebook_of(run, identity))
    return {}
