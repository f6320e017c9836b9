"""The commands that a client offers behind a slash."""

from __future__ import annotations

from pathlib import Path

from acp import schema

from rlm_kernel.acp.files import Files
from rlm_kernel.acp.prompts import Message
from rlm_kernel.acp.storage import Stored
from rlm_kernel.errors import ConfigError
from rlm_kernel.untrusted import json_text

COMMANDS = [
    schema.AvailableCommand(
        name="notebook",
        description="Write this conversation as a notebook, beside the notebook that you mention",
        input=schema.AvailableCommandInput(root=schema.UnstructuredCommandInput(hint="a file name (optional)")),
    )
]
_MAX_NOTEBOOK = 100_000_000


def write_notebook(stored: Stored, files: Files, message: Message) -> Path:
    """Write the conversation as a notebook that holds its record.

    Args:
        stored: the session.
        files: where it may be written: in the folders of the session.
        message: ``/notebook``, with a file name behind it or a linked notebook.

    Raises:
        ConfigError: there is no message yet, or the file cannot be written there.
        OSError: it cannot be written.
    """
    import nbformat

    from rlm_kernel.trajectory.log.reader import read_log
    from rlm_kernel.trajectory.notebook.build import identity_of_recording, notebook_of
    from rlm_kernel.trajectory.notebook.bundle import bundled

    if (log := stored.log) is None:
        raise ConfigError("This conversation has no message yet.")
    target = _target(stored, files, message)
    recording = read_log(log)
    notebook = bundled(notebook_of(recording.trajectory, identity_of_recording(recording)), recording)
    nbformat.write(notebook, target)  # type: ignore[no-untyped-call]
    return target


def _target(stored: Stored, files: Files, message: Message) -> Path:
    """Where it is written: beside the linked notebook, or in the working directory. No other file is replaced."""
    linked = [path for path in message.linked if path.suffix == ".ipynb"]
    named = "" if message.linked else message.text.removeprefix("/notebook").strip()
    if linked:
        target = linked[0].with_name(f"{linked[0].stem}-rlm.ipynb")
    else:
        target = files.place(named or f"rlm-{stored.id[:8]}.ipynb").path
    target = target.with_suffix(".ipynb")
    root = files.place(str(target)).root
    if not target.parent.resolve().is_relative_to(root.resolve()) or target.is_symlink():
        raise ConfigError(f"{target.name} would be written outside of the folders of this session.")
    if target.exists() and not _is_ours(target):
        raise ConfigError(f"{target.name} is there already, and it is not the notebook of a run: give another name.")
    return target


def _is_ours(path: Path) -> bool:
    try:
        return "rlm" in json_text.load(path, max_bytes=_MAX_NOTEBOOK)["metadata"]
    except (ValueError, OSError, KeyError, TypeError):
        return False
