"""What the child process can reach: its libraries, the files that the host passes to it, and nothing else."""

from __future__ import annotations

import mimetypes
import os
import sys
from pathlib import Path

from rlm_kernel.untrusted import landlock, seccomp

_LIBRARIES = ("lib", "lib32", "lib64")
_SYSTEM = (
    *("/usr/share", "/nix/store", "/gnu/store", "/etc/ld.so.cache", "/etc/localtime"),
    *("/usr/lib/ssl/openssl.cnf", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/etc/crypto-policies"),
    *("/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/dev/null", "/dev/random", "/dev/urandom"),
)
_PACKAGE = str(Path(__file__).resolve().parents[1])


def confine() -> None:
    """Confine this process for good, with what the system has of Landlock and seccomp.

    It reads the libraries of Python and of the system, and writes nothing. It makes no sockets, starts no processes,
    and reaches no other one. Open files stay open.

    Raises:
        OSError: the system has it and refuses it.
    """
    lacking = missing()
    if "Landlock" not in lacking:
        landlock.confine(libraries(), [], landlock.ANY_OWNER)
    if "seccomp" not in lacking:
        seccomp.confine(alone=True, single=True)


def missing() -> tuple[str, ...]:
    """Which of "Landlock" (it keeps files out) and "seccomp" (network and processes) this system does not have."""
    if sys.platform != "linux":
        return ("Landlock", "seccomp")
    has_filters = seccomp.is_known() and seccomp.is_available()
    return ("Landlock",) * (not landlock.abi()) + ("seccomp",) * (not has_filters)


def libraries() -> list[str]:
    """The paths that the child may read: where Python, its packages and the libraries of the system are.

    A folder of `PYTHONPATH` is among them if packages were installed there. Others hold a user's own files.
    """
    prefixes = {"/", "/usr", "/usr/local", sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    ours = [os.path.join(prefix, name) for prefix in sorted(prefixes) for name in _LIBRARIES]  # noqa: PTH118
    linked = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path.strip("/")]
    return [*ours, *filter(_holds_packages, sys.path), *linked, *_SYSTEM, *map(str, mimetypes.knownfiles), _PACKAGE]


def _holds_packages(folder: str) -> bool:
    """Whether packages were installed into a folder: pip leaves a record of each."""
    try:
        return any(name.endswith((".dist-info", ".egg-info")) for name in os.listdir(folder))  # noqa: PTH208
    except OSError:  # a ZIP file, or no longer there
        return False
