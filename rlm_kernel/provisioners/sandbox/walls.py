"""Which sandboxes this machine has, and the command of a kernel in one of them."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from inspect import getsource
from pathlib import Path
from typing import Any, Literal

from rlm_kernel.errors import ConfigError
from rlm_kernel.provisioners.mounts import Mount
from rlm_kernel.provisioners.relay.host_end import source
from rlm_kernel.untrusted import landlock, seccomp

Sandbox = Literal["bwrap", "landlock"]
CHECK_SECONDS = 10
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt")
_SETTINGS = (
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/fonts"),
    *("/etc/localtime", "/etc/mime.types", "/etc/ssl/certs", "/etc/ssl/openssl.cnf"),
)
_FACTS = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/uptime", "/proc/loadavg", "/proc/version")
"""What Landlock lets through of /proc: nothing of a process."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/shm")  # noqa: S108
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""Files of the system's settings: their owner is root, who may write them without any capability."""
_NAMESPACES = ("--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--hostname", "sandbox")


@functools.cache
def trouble(sandbox: Sandbox) -> str:
    """Why this machine does not have a sandbox, and what to do; empty if it has it."""
    if sys.platform != "linux":
        return "it needs Linux: use environment='docker' here"
    if not seccomp.is_known():
        return "it needs an x86_64, aarch64 or riscv64 processor: use environment='docker' here"
    if not seccomp.is_available():
        return (
            "the kernel of this system, or the container around, refuses seccomp filters: use environment='docker' here"
        )
    if sandbox == "landlock":
        if landlock.abi() >= landlock.ABI_OF_SCOPES:
            return ""
        return "the kernel of this system has no Landlock with scopes: it needs Linux 6.12 with lsm=landlock"
    return _trouble_of_bwrap()


def _trouble_of_bwrap() -> str:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return "bubblewrap is not installed: apt install bubblewrap, or dnf install bubblewrap"
    command = [bwrap, *_NAMESPACES, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not run: {error}"
    if done.returncode:
        return f"bubblewrap may not make namespaces here ({done.stderr.strip()}): allow user namespaces"
    return ""


def choose(asked: bool | Sandbox) -> Sandbox | None:
    """The sandbox to use: None for False, the best one for True.

    Raises:
        ConfigError: this machine does not have it.
    """
    if asked is False:
        return None
    wanted: tuple[Sandbox, ...] = ("bwrap", "landlock") if asked is True else (asked,)
    troubles = {name: trouble(name) for name in wanted}
    for name, why in troubles.items():
        if not why:
            return name
    reasons = "; ".join(f"{name}: {why}" for name, why in troubles.items())
    raise ConfigError(f"sandbox={asked!r} is not possible on this machine. {reasons}.")


def wall_of(option: bool | Sandbox | None) -> Sandbox | None:
    """The wall of a kernel with this option: None as an option is the default of this machine, as a result no wall.

    Raises:
        ConfigError: this machine does not have it.
    """
    return choose(in_environment() if option is None else option)


def in_environment() -> bool | Sandbox:
    """The default of this machine: `RLM_SANDBOX` is 1, or the name of a sandbox.

    Raises:
        ConfigError: it is something else.
    """
    asked = os.environ.get("RLM_SANDBOX", "")
    names: dict[str, bool | Sandbox] = {"": False, "0": False, "1": True, "bwrap": "bwrap", "landlock": "landlock"}
    if asked not in names:
        raise ConfigError(f"RLM_SANDBOX is 1, 0, bwrap or landlock, not {asked!r}.")
    return names[asked]


def confined(
    command: Sequence[str], sandbox: Sandbox, directory: Path, cwd: Path, mounts: Iterable[Mount]
) -> list[str]:
    """The command of a kernel in a sandbox.

    Args:
        command: of the launcher: the Python, its options, `-m` and the module, and the launcher's arguments.
        sandbox: which one.
        directory: the private directory of the kernel, which it may write.
        cwd: its working directory, readable if it is not in `directory`.
        mounts: what else it sees. Landlock cannot show a path under another name.

    Raises:
        ConfigError: a mount is not possible with Landlock.
    """
    python, *rest = command
    # All is given as text: this package need not be visible inside.
    if sandbox == "landlock":
        wall: dict[str, Any] = {**paths(python, directory, cwd, mounts)}
    else:
        wall = _bwrap(_shown(python, directory, cwd), directory, cwd, mounts)
    sources = {"launcher": source("launcher.py"), "landlock": getsource(landlock), "seccomp": getsource(seccomp)}
    settings = json.dumps({**sources, **wall})
    return [python, "-P", "-c", source("sandbox/walled.py"), settings, *rest[rest.index("-m") + 2 :]]


def paths(python: str, directory: Path, cwd: Path, mounts: Iterable[Mount]) -> dict[str, list[str]]:
    """What a kernel behind Landlock may `read` and may `write`. Arguments as for `confined`.

    Raises:
        ConfigError: a mount has another name inside.
    """
    read, write = [*_shown(python, directory, cwd), *_FACTS], [*_DEVICES, str(directory)]
    for mount in mounts:
        if mount.source != mount.target:
            raise ConfigError(
                f"Landlock cannot show {mount.source} as {mount.target}: mount it under its own name, "
                "or use sandbox='bwrap'."
            )
        (write if mount.writable else read).append(mount.source)
    return {"read": read, "write": write}


def shows(path: Path) -> bool:
    """Whether every kernel in a sandbox can read a path, because it is below a folder of the system or of Python."""
    return any(path.is_relative_to(shown) for shown in (*_SYSTEM, sys.prefix, sys.base_prefix))


def _shown(python: str, directory: Path, cwd: Path) -> list[str]:
    shown = [*_SYSTEM, *_SETTINGS, *sorted({sys.prefix, sys.base_prefix, str(Path(python).parents[1])} - {"/"})]
    return shown if cwd.is_relative_to(directory) else [*shown, str(cwd)]


def _bwrap(shown: Sequence[str], directory: Path, cwd: Path, mounts: Iterable[Mount]) -> dict[str, Any]:
    options = [str(shutil.which("bwrap")), *_NAMESPACES, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108
    for path in shown:
        if os.path.islink(path):  # noqa: PTH114 (/bin is a link to /usr/bin)
            options += ["--symlink", os.readlink(path), path]  # noqa: PTH115
        else:
            options += ["--ro-bind-try", path, path]
    for path in _READ_ONLY:
        options += ["--ro-bind-try", path, path]
    for mount in sorted(mounts, key=lambda mount: Path(mount.target).parts):  # a later one covers what is below it
        options += ["--bind" if mount.writable else "--ro-bind", mount.source, mount.target]
    options += ["--bind", str(directory), str(directory), "--chdir", str(cwd)]
    return {"bwrap": [*options, "--setenv", "HOME", str(cwd), "--"]}
