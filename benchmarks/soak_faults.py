"""What `soak.py` does to a batch in progress, and what it sees of its processes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

DISK_MB = 3_000
"""Size of the disk for the logs."""


@dataclass(frozen=True)
class Fault:
    """A fault that was injected from outside.

    Attributes:
        kind: its name.
        begin: seconds of `time.time`.
        end: the same.
        pids: of the kernels that it ended.
    """

    kind: str
    begin: float
    end: float
    pids: tuple[int, ...] = ()


@dataclass
class Injector:
    """Injects faults at random times.

    Args:
        host: the process with `RLM.map`.
        workers: gives the processes of a cluster's workers; None: there is no cluster. The first one is not killed, so
            that its memory can be judged.
        disk: the folder of the logs if it is a disk of its own, or None.
        seed: of the times and choices.
        pace: 1: a kernel is killed every 8 seconds. Smaller is faster.

    Attributes:
        faults: what was injected.
    """

    host: psutil.Process
    workers: Callable[[], list[psutil.Process]] | None
    disk: Path | None
    seed: int
    pace: float
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        every = {"kernel killed": 8, "fork server killed": 150}
        if self.disk is not None:
            every["disk full"] = 60
        if self.workers is not None:
            every["worker killed"] = 90
        self._every = {kind: seconds * self.pace for kind, seconds in every.items()}
        self._next = {kind: self._later(kind) for kind in self._every}
        self._full_until = 0.0

    def step(self) -> None:
        """Inject what is due."""
        now = time.time()
        if self._full_until and now > self._full_until:
            self.free()
        for kind in [kind for kind, at in self._next.items() if at <= now]:
            self._next[kind] = self._later(kind)
            if kind == "disk full":
                self._fill()
            elif (pids := self._kill(kind)) is not None:
                self.faults.append(Fault(kind, now, now, pids))

    def free(self) -> None:
        """End the fault of the full disk."""
        if self._full_until and self.disk is not None:
            (self.disk / "ballast").unlink()
            self.faults[self._filled] = Fault("disk full", self.faults[self._filled].begin, time.time())
            self._full_until = 0.0

    def _later(self, kind: str) -> float:
        return time.time() + self._every[kind] * self._dice.uniform(0.5, 1.5)

    def _fill(self) -> None:
        assert self.disk is not None, "there is a disk"
        now = time.time()
        self._filled, self._full_until = len(self.faults), now + 4 * self.pace
        self.faults.append(Fault("disk full", now, now))
        with (self.disk / "ballast").open("wb") as file, suppress(OSError):
            while True:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), 4096)
                file.seek(0, os.SEEK_END)
                size = max(4096, shutil.disk_usage(self.disk).free // 2 // 4096 * 4096)
                os.posix_fallocate(file.fileno(), file.tell(), size)

    def _kill(self, kind: str) -> tuple[int, ...] | None:
        """Kill a process, and return the kernels that it takes along; None: there is none."""
        engines = [self.host] if self.workers is None else self.workers()
        victims = engines[1:] if kind == "worker killed" else [*fork_servers(engines)]
        if kind == "kernel killed":
            victims = [kernel for server in victims for kernel in _children(server)]
        if not victims:
            return None
        victim = self._dice.choice(sorted(victims, key=lambda process: process.pid))
        pids = [process.pid for process in (victim, *_children(victim, recursive=True))]
        with suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
            return tuple(pids)
        return None


def _children(process: psutil.Process, *, recursive: bool = False) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return list(process.children(recursive=recursive))
    return []


def fork_servers(engines: Iterable[psutil.Process]) -> Iterator[psutil.Process]:
    """The processes from which kernels are forked."""
    for engine in engines:
        for child in _children(engine):
            with suppress(psutil.NoSuchProcess):
                if any("fork_server" in word for word in child.cmdline()):
                    yield child


def sample(engines: Iterable[psutil.Process], folders: Iterable[Path]) -> dict[str, float]:
    """What the processes use, added up: MB, descriptors, threads, child processes; and entries in the folders.

    The memory of each process is there, too: `uss 0`, `uss 1`.
    """
    parts: dict[str, float] = {}
    sums: dict[str, float] = dict.fromkeys(("rss", "uss", "descriptors", "threads", "children", "fork server"), 0.0)
    engines = list(engines)
    for engine in engines:
        with suppress(psutil.NoSuchProcess), engine.oneshot():
            memory = engine.memory_full_info()
            sums["rss"] += memory.rss / 1e6
            sums["uss"] += memory.uss / 1e6
            parts[f"uss {len(parts)}"] = memory.uss / 1e6
            sums["descriptors"] += engine.num_fds()
            sums["threads"] += engine.num_threads()
            sums["children"] += len(engine.children(recursive=True))
    for server in fork_servers(engines):
        with suppress(psutil.NoSuchProcess):
            sums["fork server"] += server.memory_full_info().uss / 1e6
    files = sum(len(names) + len(folders_) for top in folders for _, folders_, names in _walk(top))
    return {**sums, **parts, "files": float(files), "shm": float(len(list(Path("/dev/shm").iterdir())))}


def _walk(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """The folders below one, without those of Dask, which removes what a killed worker has left when one starts."""
    for path, folders, names in os.walk(top):
        folders[:] = [name for name in folders if name != "dask-scratch-space"]
        yield path, folders, names


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A disk of its own at the folder, or None where this user may not mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "soak", str(folder)]
    mounted = (
        shutil.which("mount") is not None
        and subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0
    )
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)
