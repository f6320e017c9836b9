"""Confine a process with Landlock. It runs as text, with the standard library only.

The process and all that it starts can read and execute below some paths, and also write below others. They can neither
connect nor bind TCP sockets, nor connect to abstract Unix sockets or send signals outside. Root loses its capabilities:
it could open raw sockets, or change the host's name. The session's keyring stays outside, too.
"""

import ctypes
import os
import struct

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
TRUNCATE, IOCTL_DEV, ABI_OF_SCOPES = 1 << 14, 1 << 15, 6
KINDS_OF_ACCESS = 16
"""To files, in the first version with scopes."""
PATH_BENEATH = 1
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
CAPABILITY_VERSION, CAPABILITIES = 0x20080522, 64
KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219}
JOIN_SESSION_KEYRING = 1
_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """The version of Landlock in this kernel; 0: there is none."""
    version: int = _libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    return max(version, 0)


def confine(readable: "list[str]", writable: "list[str]") -> None:
    """Confine this process and all that it starts.

    Raises:
        OSError: the kernel refuses it.
    """
    every = (1 << KINDS_OF_ACCESS) - 1
    # Files; TCP bind and connect; signals and abstract Unix sockets of processes outside.
    attributes = struct.pack("QQQ", every, 3, 3)
    ruleset = _checked(_libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    for paths, access in ((readable, EXECUTE | READ_FILE | READ_DIR), (writable, every)):
        for path in paths:
            _allow(ruleset, path, access)
    _checked(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(_libc.syscall(RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)
    _drop_capabilities()
    leave_keyring()


def leave_keyring() -> None:
    """Have an empty session keyring, in place of that of the host."""
    if (number := KEYCTL.get(os.uname().machine)) is not None:
        _libc.syscall(number, JOIN_SESSION_KEYRING, None)  # fails where there are no keyrings


def _drop_capabilities() -> None:
    for capability in range(CAPABILITIES):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # only root can, and only root would get it back by exec
    _checked(_libc.capset(struct.pack("=Ii", CAPABILITY_VERSION, 0), bytes(24)))


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what does not exist need not be allowed
    try:
        if not os.path.isdir(path):  # noqa: PTH112
            access &= EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
        _checked(_libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", access, opened), 0))
    finally:
        os.close(opened)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
