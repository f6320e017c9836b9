"""The process between the host and an MCP server that is a program.

    python -I supervisor.py COMMAND ARGUMENT ...

The server is its child, in a process group of its own, and reads and writes the pipes of the host. When the host closes
its end of the standard input, also by being killed, the server has `GRACE_SECONDS` to end. Then its group and, on Linux,
all processes that it has started are killed. It uses the standard library only, and imports little.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

GRACE_SECONDS = 1.0
KILL_SECONDS = 2.0
PR_SET_CHILD_SUBREAPER = 36
NOT_STARTED = 127


def main(command: list[str]) -> int:
    """Start a server, and end it with the host. Returns its exit status as a shell reports it."""
    become_subreaper()
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    child = os.fork()
    if child == 0:
        become(command)
    with contextlib.suppress(OSError):
        os.setpgid(child, child)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # the host must see the end of the server's output
    status = wait_for(child, wake)
    if status is None:
        status = end(child, wake)
    kill_below(child)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def become(command: list[str]) -> None:
    """Turn this process into the server."""
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606 (a shell would read the arguments)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(NOT_STARTED)


def wait_for(child: int, wake: int) -> int | None:
    """The status of the server when it has ended; None when the host has, or a signal asks for the end."""
    poll = select.poll()
    poll.register(0, 0)  # the server reads it; here only its end is seen
    poll.register(wake, select.POLLIN)
    while True:
        events = dict(poll.poll())
        asked = wake in events and any(number != signal.SIGCHLD for number in os.read(wake, 1024))
        if (status := reap(child)) is not None:
            return status
        if asked or 0 in events:
            return None


def end(child: int, wake: int) -> int:
    """Wait a little for the end of the server, then ask it, then kill it."""
    for seconds, number in ((GRACE_SECONDS, signal.SIGTERM), (GRACE_SECONDS, signal.SIGKILL), (None, None)):
        deadline = None if seconds is None else time.monotonic() + seconds
        while deadline is None or time.monotonic() < deadline:
            if (status := reap(child)) is not None:
                return status
            select.select([wake], [], [], None if deadline is None else max(0.0, deadline - time.monotonic()))
            with contextlib.suppress(OSError):
                os.read(wake, 1024) if select.select([wake], [], [], 0)[0] else None
        if number is not None:
            with contextlib.suppress(OSError):
                os.killpg(child, number)
    raise AssertionError("the last wait has no end")


def reap(child: int) -> int | None:
    """Reap what has ended. Returns the status of the server if it is among it."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 0
        if pid == child:
            return status
        if pid == 0:
            return None


def kill_below(child: int) -> None:
    """Kill the group of the server, and the processes that were left to us."""
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    deadline = time.monotonic() + KILL_SECONDS
    while time.monotonic() < deadline:
        for pid in children():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.001)
        except ChildProcessError:
            return


def children() -> list[int]:
    """The children of this process, from Linux's /proc; empty on other systems."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as listing:  # noqa: PTH123 (pathlib costs an import)
            return [int(pid) for pid in listing.read().split()]
    except OSError:
        return []


def become_subreaper() -> None:
    """Become the parent of the orphans below this process (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
