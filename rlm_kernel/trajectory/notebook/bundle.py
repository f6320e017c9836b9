"""A run in one file: a notebook that holds its log and its input, or a ZIP archive with all its files.

The notebook has one more cell, with the ZIP archive in base64. It runs in a kernel without rlm-kernel.
"""

from __future__ import annotations

import base64
import inspect
import io
import re
from copy import deepcopy
from typing import IO, TYPE_CHECKING

from rlm_kernel.errors import RecordingError
from rlm_kernel.trajectory.log import archive
from rlm_kernel.trajectory.log.reader import Recording
from rlm_kernel.trajectory.notebook.build import (
    SETUP_TAG,
    fingerprint,
    identity_of_recording,
    notebook_of,
    runs,
)
from rlm_kernel.trajectory.notebook.setup_cell import replay_code

if TYPE_CHECKING:
    from nbformat import NotebookNode

MAX_BYTES = 200_000_000
"""Of the archive in a notebook: an editor opens no larger one."""

_FOLDER = re.compile(r"^rlm_dir = .*$", re.MULTILINE)
_PLAIN_KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
_COMMENT = (
    "# The files of the run, as a ZIP archive in base64: its log, its input, and the code of the setup cell below."
)


def rlm_unpack(archive: str) -> object:
    """The files of the run, in a folder that lasts as long as this kernel."""
    import base64
    import io
    import tempfile
    import zipfile

    folder = tempfile.TemporaryDirectory()
    zipfile.ZipFile(io.BytesIO(base64.b64decode(archive))).extractall(folder.name)
    return folder


def bundled(notebook: NotebookNode, recording: Recording) -> NotebookNode:
    """The notebook of a run with all that it needs to run again.

    Args:
        notebook: of the run; it is not changed.
        recording: the run.

    Raises:
        RecordingError: a log of an earlier run is missing, or the files are too large for a notebook.
        OSError: a file cannot be read.
    """
    buffer = io.BytesIO()
    notebook = _travelling(notebook)
    notebook.cells = [cell for cell in notebook.cells if archive.TAG not in cell.metadata.get("tags", [])]
    saved = {f"{recording.stem}.ipynb": _bytes(notebook)}  # the setup cell shows its folded sub-calls again
    archive.write(buffer, archive.files_of(recording.path), saved | _replay_code())
    if buffer.tell() > MAX_BYTES:
        raise RecordingError(
            f"The files of the run have {buffer.tell():,} bytes, too many for a notebook: make a ZIP archive with "
            "--bundle -o NAME.zip."
        )
    place = next((n for n, cell in enumerate(notebook.cells) if SETUP_TAG in cell.metadata.get("tags", [])), 0)
    notebook.cells.insert(place, _cell(base64.encodebytes(buffer.getvalue()).decode("ascii")))
    return notebook


def write_archive(file: IO[bytes], notebook: NotebookNode, recording: Recording) -> None:
    """Write a ZIP archive with all files of a run, its notebook, and those of its children.

    Args:
        file: where it is written.
        notebook: of the run.
        recording: the run.

    Raises:
        OSError: a file cannot be read or written.
    """
    made = dict(_replay_code())
    own = notebook.metadata["rlm"].get("child", [])
    for run, identity in runs(recording.trajectory, identity_of_recording(recording)):
        is_given = own == [list(place) for place in identity.child]
        given = notebook if is_given else notebook_of(run, identity)
        made[identity.file] = _bytes(_travelling(given, ".." if identity.child else "."))
    archive.write(file, archive.files_of(recording.path), made)


def _travelling(notebook: NotebookNode, folder: str = ".") -> NotebookNode:
    """The notebook without the names of this machine. A run of this machine needs no kernelspec of ours.

    Args:
        notebook: is not changed.
        folder: of the log, as seen from the notebook.
    """
    notebook = deepcopy(notebook)
    notebook.metadata["rlm"]["rlm_dir"] = folder
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = _FOLDER.sub(f"rlm_dir = {folder!r}", cell.source)
            cell.metadata.setdefault("rlm", {})["sha256"] = fingerprint(cell.source)
    if notebook.metadata.get("kernelspec", {}).get("name") == "rlm-local":
        notebook.metadata["kernelspec"] = dict(_PLAIN_KERNEL)
    return notebook


def _cell(content: str) -> NotebookNode:
    import nbformat

    assigned = archive.ASSIGNED.format(content)
    source = f"{_COMMENT}\n\n{inspect.getsource(rlm_unpack)}\n\n{assigned}\nrlm_dir = rlm_bundle.name\ndel rlm_unpack"
    metadata = {
        "tags": [archive.TAG],
        "jupyter": {"source_hidden": True},
        "rlm": {"role": "bundle", "sha256": fingerprint(source)},
    }
    cell: NotebookNode = nbformat.v4.new_code_cell(source, id=archive.TAG, metadata=metadata)  # type: ignore[no-untyped-call]
    return cell


def _replay_code() -> dict[str, bytes]:
    code = replay_code()
    return {code.name: code.content}


def _bytes(notebook: NotebookNode) -> bytes:
    import nbformat

    text: str = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
    return text.encode("utf-8")
