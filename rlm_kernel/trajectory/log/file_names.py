"""The names of the files of a run: each is the name of the run with an ending."""

from __future__ import annotations

from pathlib import Path, PurePath

RECORD = ".events.jsonl"
"""The record: all events, which replay, resume, the notebook and the viewer read."""
TURNS = ".jsonl"
"""The turns, in the documented format. In older runs this file is the record."""
NOTEBOOK = ".ipynb"


def stem_of(path: PurePath) -> str:
    """The name of the run whose file this is."""
    return path.name.removesuffix(RECORD) if path.name.endswith(RECORD) else path.stem


def file_beside(path: Path, ending: str) -> Path:
    """Another file of the same run, in the same folder."""
    return path.with_name(f"{stem_of(path)}{ending}")


def record_beside(path: Path) -> Path:
    """The record of the run whose file this is. In older runs, and in logs of other tools, it is the `.jsonl`."""
    record = file_beside(path, RECORD)
    return record if record.is_file() else file_beside(path, TURNS)
