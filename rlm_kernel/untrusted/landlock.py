"""Confine a process with Landlock. It runs as text, with the standard library only.

The process and all that it starts can read and execute below some paths, and also write below others. They can neither
connect nor bind TCP sockets (Linux 6.7), nor connect to abstract Unix sockets or send signals outside (Linux 6.12).
Root loses its capabilities: it could open raw sockets, or change the host's name. The session's keyring stays outside.
"""

import ctypes
import os
import struct

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
TRUNCATE, IOCTL_DEV, ABI_OF_TCP, ABI_OF_SCOPES = 1 << 14, 1 << 15, 4, 6
KINDS_OF_ACCESS = (13, 14, 15, 15, 16)
"""To files, in version 1 and the next ones."""
ATTRIBUTES = {1: 8, ABI_OF_TCP: 16, ABI_OF_SCOPES: 24}
"""Bytes of the attributes of a ruleset, from a version on."""
PATH_BENEATH = 1
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
CAPABILITY_VERSION, CAPABILITIES = 0x20080522, 64
ANY_OWNER = 1 << 1 | 1 << 2
"""The capabilities to read files of any owner and mode (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)."""
KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219}
JOIN_SESSION_KEYRING = 1
_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """The version of Landlock in this kernel; 0: there is none."""
    version: int = _libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    return max(version, 0)


def confine(readable: "list[str]", writable: "list[str]", kept: int = 0) -> None:
    """Confine this process and all that it starts.

    Args:
        readable: paths; those that do not exist are left out.
        writable: likewise.
        kept: capabilities of root that it keeps, as bits.

    Raises:
        OSError: the kernel refuses it.
    """
    version = abi()
    every = (1 << KINDS_OF_ACCESS[min(version, len(KINDS_OF_ACCESS)) - 1]) - 1
    # Files; TCP bind and connect; signals and abstract Unix sockets of processes outside.
    size = max((size for since, size in ATTRIBUTES.items() if version >= since), default=0)
    attributes = struct.pack("QQQ", every, 3, 3)[:size]
    ruleset = _checked(_libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    for paths, access in ((readable, EXECUTE | READ_FILE | READ_DIR), (writable, every)):
        for path in paths:
            _allow(ruleset, path, access & every)
    _checked(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(_libc.syscall(RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)
    _drop_capabilities(kept)
    leave_keyring()


def leave_keyring() -> None:
    """Have an empty session keyring, in place of that of the host."""
    if (number := KEYCTL.get(os.uname().machine)) is not None:
        _libc.syscall(number, JOIN_SESSION_KEYRING, None)  # fails where there are no keyrings


def _drop_capabilities(kept: int) -> None:
    for capability in range(CAPABILITIES):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # only root can, and only root would get it back by exec
    header, sets = struct.pack("=Ii", CAPABILITY_VERSION, 0), ctypes.create_string_buffer(24)
    _checked(_libc.capget(header, sets))
    kept &= struct.unpack_from("=I", sets)[0]  # effective, permitted and inheritable ones, 32 of each, then the others
    _checked(_libc.capset(header, struct.pack("=IIIIII", kept, kept, 0, 0, 0, 0)))


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
