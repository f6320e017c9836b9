"""Refuse system calls that no other wall covers. It runs as text, with the standard library only.

Landlock does not know the modes and owners of files, limits and priorities of other processes, keyrings, System
V memory, watches of folders, and sockets but plain TCP. Namespaces do not cover sockets to the hypervisor.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOWED, FAILS = 0x7FFF0000, 0x00050000
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16
X32 = 0x40000000
"""The first number of a second table of the same calls, on x86_64."""
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3}
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16

# The numbers on x86_64, and those that other machines share. -1: they do not have it.
DO_NOTHING = {
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, -1), "lchown": (94, -1), "fchown": (93, 55), "fchownat": (260, 54),
}  # fmt: skip
"""They pretend to succeed: `shutil.copy` and tar use them for files of their own. Calls that set times are not among
them: `Path.touch` takes a success for a file that exists."""
NOT_SUPPORTED = {
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}  # fmt: skip
MISSING = {
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "io_uring_setup": (425, 425),
    "shmget": (29, 194), "shmctl": (31, 195), "shmat": (30, 196), "semget": (64, 190), "semctl": (66, 191),
    "semop": (65, 193), "semtimedop": (220, 192), "msgget": (68, 186), "msgctl": (71, 187),
    "msgrcv": (70, 188), "msgsnd": (69, 189),
}  # fmt: skip
DENIED = {
    "inotify_add_watch": (254, 27), "fanotify_init": (300, 262),
    "setpriority": (141, 140), "ioprio_set": (251, 30),
}  # fmt: skip
SCHEDULING = {
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
}  # fmt: skip
"""For others than the caller, which is 0, they pretend to succeed: ZeroMQ sets its threads so."""
LIMITS = (302, 261)
SOCKET = (41, 198)
OTHER_PROCESSES = {
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, -1), "vfork": (58, -1),
    "unshare": (272, 97), "setns": (308, 268), "open_by_handle_at": (304, 265),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438),
}  # fmt: skip
"""Refused to a process that is on its own: it starts none, and reaches none."""
SIGNALS = {"kill": (62, 129), "tgkill": (234, 131)}
CLONE, CLONE3, CLONE_THREAD = (56, 220), (435, 435), 1 << 16
"""Without clone3, whose flags are in memory, the C library starts threads with clone."""


def is_known() -> bool:
    """Whether the numbers of this machine's system calls are known."""
    return os.uname().machine in ARCHITECTURES


def is_available() -> bool:
    """Whether the kernel of this system takes filters: a filter at no address is a bad address then, else refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, None, 0, 0)
    return ctypes.get_errno() == errno.EFAULT


def confine(*, alone: bool, single: bool = False) -> None:
    """Refuse the calls to this process and all that it starts, which can gain no privileges any more.

    Args:
        alone: whether there are no namespaces; else only sockets are refused that namespaces do not cover.
        single: whether it makes no sockets, starts no process, and sends signals to itself only.

    Raises:
        OSError: the kernel refuses it, or the machine is not known.
    """
    if not is_known():
        raise OSError(errno.ENOSYS, f"seccomp: unknown machine {os.uname().machine}")
    steps = b"".join(_steps(os.uname().machine, alone=alone, single=single))
    program = ctypes.create_string_buffer(steps)
    # struct sock_fprog: the number of steps, and where they are.
    asked = struct.pack("HP", len(steps) // 8, ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, asked, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


def _steps(machine: str, *, alone: bool, single: bool) -> "Iterable[bytes]":
    """The steps of the filter, 8 bytes each."""
    column = 0 if machine == "x86_64" else 1
    missing = _step(RETURN, FAILS | errno.ENOSYS)
    yield from (_step(LOAD, ARCHITECTURE_AT), _step(EQUAL, ARCHITECTURES[machine], 1), missing)
    yield _step(LOAD, NUMBER_AT)
    yield from (_step(AT_LEAST, X32, 0, 1), missing)
    if alone:
        for calls, failure in (
            *((DO_NOTHING, 0), (NOT_SUPPORTED, errno.EOPNOTSUPP)),
            *((MISSING, errno.ENOSYS), (DENIED, errno.EPERM)),
        ):
            for numbers in calls.values():
                if numbers[column] >= 0:
                    yield from (_step(EQUAL, numbers[column], 0, 1), _step(RETURN, FAILS | failure))
        for numbers in SCHEDULING.values():
            yield from _only(numbers[column], (0,), 0)
        yield from _only(LIMITS[column], (0,), errno.EPERM)
    if single:
        yield from _single(column)
    # ZeroMQ looks up the addresses of the machine with netlink. Landlock's rules for TCP let through Multipath TCP, TCP
    # Fast Open, and listening at a port that the system chooses.
    families = (AF_UNIX, AF_NETLINK, *(() if alone else (AF_INET, AF_INET6)))
    yield from _only(SOCKET[column], () if single else families, errno.EACCES)
    yield _step(RETURN, ALLOWED)


def _single(column: int) -> "Iterable[bytes]":
    """Refuse to start, reach and signal other processes."""
    for numbers in OTHER_PROCESSES.values():
        if numbers[column] >= 0:
            yield from (_step(EQUAL, numbers[column], 0, 1), _step(RETURN, FAILS | errno.EPERM))
    yield from (_step(EQUAL, CLONE3[column], 0, 1), _step(RETURN, FAILS | errno.ENOSYS))
    yield from (_step(EQUAL, CLONE[column], 0, 4), _step(LOAD, ARGUMENTS_AT), _step(ANY_BIT, CLONE_THREAD, 0, 1))
    yield from (_step(RETURN, ALLOWED), _step(RETURN, FAILS | errno.EPERM))
    for numbers in SIGNALS.values():
        yield from _only(numbers[column], (os.getpid(),), errno.EPERM)


def _only(number: int, values: "tuple[int, ...]", failure: int) -> "Iterable[bytes]":
    """Refuse a call unless its first argument is one of these numbers of 32 bits."""
    yield _step(EQUAL, number, 0, 2 * len(values) + 2)
    yield _step(LOAD, ARGUMENTS_AT)
    for value in values:
        yield from (_step(EQUAL, value, 0, 1), _step(RETURN, ALLOWED))
    yield _step(RETURN, FAILS | failure)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
