"""Records that are not this user's: as somebody else would send them, with whatever they want in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recorded_runs import RecordedRun, code, record

WITNESS = "ran-here"


def recorded(folder: Path, **arguments: Any) -> RecordedRun:
    """A run of this user's whose only cell leaves a file in the folder each time that it runs."""
    mark = code("from pathlib import Path", f"Path({str(folder / WITNESS)!r}).touch()", "FINAL('done')")
    run = record(folder, [mark], **arguments)
    (folder / WITNESS).unlink()
    return run


def ran(folder: Path) -> bool:
    """Whether the cell ran once more."""
    return (folder / WITNESS).exists()


def lines(log: Path) -> list[bytes]:
    return log.read_bytes().splitlines(keepends=True)


def with_options(log: Path, environment: str, options: dict[str, Any]) -> Path:
    """The log of a run that says of itself that it ran elsewhere."""
    first, *rest = lines(log)
    about = json.loads(first)
    about |= {"environment": environment, "environment_type": environment, "environment_kwargs": options}
    about["configuration"] |= {"environment": environment, "environment_kwargs": options}
    log.write_bytes(b"".join([json.dumps(about).encode() + b"\n", *rest]))
    return log
