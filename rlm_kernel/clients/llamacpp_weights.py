"""The weights of the local model as the calls of a process share them: one attempt, however many calls wait for it."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_kernel.clients.weights import QWEN_CODER, cache_folder, ensure

if TYPE_CHECKING:
    from rlm_kernel.clients.download_progress import Progress

_attempts: dict[Path, Future[Path]] = {}
_lock = threading.Lock()


async def fetched(progress: Progress | None = None) -> Path:
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
