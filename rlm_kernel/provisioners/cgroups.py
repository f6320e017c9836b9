"""Control groups (Linux). A process cannot leave the group of its kernel by a fork, so all of them are killed at once.

A group is a list of directories: one by which its processes are killed, and maybe one by which their memory is limited.
It is empty where this process may not make one below its own, which is so in most containers and for most ordinary
users. Then the functions do nothing.

The watchdog of a kernel that is not forked imports this while the kernel starts: few imports.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable, Iterator, Sequence

_FREEZERS = {"cgroup.freeze": ("1", "0"), "freezer.state": ("FROZEN", "THAWED")}
_MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")
_MEMORY_BESIDES = 64 * 2**20
"""Room for page tables, sockets and programs: a cell gets a MemoryError before the group is full."""
_PAUSE = 0.001


def make(memory: int | None) -> list[str]:
    """Make a group for one kernel, and end those of hosts that were killed.

    Args:
        memory: bytes that its processes may use together, shared memory included; None: no limit.
    """
    name = f"{_of_host(os.getpid())}-{os.urandom(4).hex()}"
    parents = list(_parents())
    killing = next((made for kind, parent in parents if kind != "memory" and (made := _made(parent, name))), None)
    if killing is None or not _has(killing, _FREEZERS):
        remove([killing] if killing else [])
        return []
    for _, parent in parents:
        _end_stale(parent)
    group = [killing]
    if memory is not None and not _limit(killing, memory):
        counting = next((made for kind, parent in parents if kind == "memory" and (made := _made(parent, name))), None)
        group += [counting] if counting and _limit(counting, memory) else []
    return group


def limit_memory() -> bool:
    """Whether a group limits the memory of all its processes together on this machine."""
    group = make(1 << 30)
    found = any(_has(directory, _MEMORY_LIMITS) for directory in group)
    remove(group)
    return found


def add(group: Sequence[str], pid: int) -> None:
    """Move a process into a group. What it has started before stays outside."""
    for directory in group:
        _write(f"{directory}/cgroup.procs", str(pid))


def end(group: Sequence[str], seconds: float) -> bool:
    """Kill all processes of a group and remove it. Returns whether none is left."""
    is_empty = kill(group, seconds)
    remove(group)
    return is_empty


def kill(group: Sequence[str], seconds: float, *, spared: Collection[int] = ()) -> bool:
    """Kill the processes of a group. Those that still fork are frozen meanwhile.

    Args:
        group: its directories.
        seconds: limit.
        spared: processes that are not killed.

    Returns:
        Whether no other one is left.
    """
    until = time.monotonic() + seconds
    while left := [pid for pid in processes(group) if pid not in spared]:
        if time.monotonic() > until:
            return False
        if not spared and _write(f"{group[0]}/cgroup.kill", "1"):
            time.sleep(_PAUSE)
            continue
        _freeze(group[0], frozen=True)
        for pid in {*left, *processes(group)}.difference(spared):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        _freeze(group[0], frozen=False)
        time.sleep(_PAUSE)
    return True


def processes(group: Sequence[str]) -> list[int]:
    """The processes of a group and of the groups below it."""
    found: list[int] = []
    for directory, _, _ in os.walk(group[0]) if group else ():
        with contextlib.suppress(OSError), open(f"{directory}/cgroup.procs") as listing:  # noqa: PTH123
            found += map(int, listing.read().split())
    return found


def remove(group: Sequence[str]) -> None:
    """Remove a group without processes. Idempotent."""
    for directory in group:
        for below, _, _ in os.walk(directory, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(below)  # noqa: PTH106


def _parents() -> Iterator[tuple[str, str]]:
    """The hierarchies of use, version 2 (""), "freezer" and "memory", and the directory of our own group in each."""
    own: dict[str, str] = {}
    with contextlib.suppress(OSError), open("/proc/self/cgroup") as listing:  # noqa: PTH123
        for line in listing:
            _, kinds, path = line.rstrip("\n").split(":", 2)
            own.update(dict.fromkeys(kinds.split(","), path))
    mounted = list(_mounted())
    for kind in ("", "freezer", "memory"):
        for options, root, point in mounted:
            inside = os.path.relpath(own.get(kind, ".."), root)
            if (kind in options or (kind == "" and options == ["cgroup2"])) and not inside.startswith(".."):
                yield kind, os.path.normpath(f"{point}/{inside}")


def _mounted() -> Iterator[tuple[list[str], str, str]]:
    """The kinds of each hierarchy of control groups, the part of it that is mounted, and where."""
    with contextlib.suppress(OSError), open("/proc/self/mountinfo") as listing:  # noqa: PTH123
        for line in listing:
            mount, _, about = line.partition(" - ")
            root, point = mount.split()[3:5]
            kind, _, options = about.split()[:3]
            if kind == "cgroup2":
                yield ["cgroup2"], root, point
            elif kind == "cgroup":
                yield options.split(","), root, point


def _made(parent: str, name: str) -> str | None:
    directory = f"{parent}/{name}"
    try:
        os.mkdir(directory)  # noqa: PTH102 (pathlib costs an import)
    except OSError:
        return None
    return directory


def _has(directory: str, names: Iterable[str]) -> bool:
    return any(os.path.exists(f"{directory}/{name}") for name in names)  # noqa: PTH110


def _limit(directory: str, memory: int) -> bool:
    return any(_write(f"{directory}/{name}", str(memory + _MEMORY_BESIDES)) for name in _MEMORY_LIMITS)


def _freeze(directory: str, *, frozen: bool) -> None:
    for name, (freeze, thaw) in _FREEZERS.items():
        _write(f"{directory}/{name}", freeze if frozen else thaw)


def _write(path: str, text: str) -> bool:
    """Write to a file of a hierarchy, unbuffered. Returns whether it exists and took the text."""
    try:
        fd = os.open(path, os.O_WRONLY)  # it is never created
    except OSError:
        return False
    try:
        return os.write(fd, text.encode()) > 0
    except OSError:
        return False
    finally:
        os.close(fd)


def _of_host(pid: int) -> str:
    """The beginning of the names of a host's groups. It names the process also when its number is used again."""
    with open(f"/proc/{pid}/stat") as status:  # noqa: PTH123
        started = status.read().rpartition(")")[2].split()[19]
    return f"rlm-{os.stat('/proc/self/ns/pid').st_ino}-{pid}-{started}"  # noqa: PTH116


def _end_stale(parent: str) -> None:
    """End the groups of hosts that no longer run: a host that was killed could not, nor its watchdog."""
    for name in os.listdir(parent):  # noqa: PTH208
        if name.startswith("rlm-") and not _is_of_a_live_host(name):
            end([f"{parent}/{name}"], seconds=1.0)


def _is_of_a_live_host(name: str) -> bool:
    """Whether the host lives, or may live: it is in another namespace of processes."""
    try:
        namespace, pid = name.split("-")[1:3]
        if namespace != str(os.stat("/proc/self/ns/pid").st_ino):  # noqa: PTH116
            return True
        return name.startswith(f"{_of_host(int(pid))}-")
    except (OSError, ValueError):
        return False
