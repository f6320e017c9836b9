"""The first process of an emulated sandbox: starts its commands, reaps them, and ends with everything below it.

    python -I -S sandbox_init.py FD HOME [--no-network]

Over the socket FD it is asked to start commands and tells how they ended. The end of that socket is the end of the
emulator, whatever ended it, and so of the sandbox, of which HOME is removed. Its own exit status is the one of the
first command.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import sys

PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
LONGEST = 1 << 20

libc = ctypes.CDLL(None, use_errno=True)


def main(control: socket.socket, network: bool) -> int:
    os.setsid()
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    isolated = not network and leave_the_network()
    control.send(json.dumps({"isolated": isolated}).encode())
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(end(137)))
    running: dict[int, str] = {}
    while True:
        readable, _, _ = select.select([control, wake], [], [])
        if wake in readable:
            os.read(wake, 1024)
            for name, status in reap(running):
                control.send(json.dumps({"exec": name, "status": status}).encode())
                if name == "":
                    return end(status)
        if control in readable:
            request, fds, _, _ = socket.recv_fds(control, LONGEST, 3)
            if not request:
                return end(137)
            start(json.loads(request), fds, running)


def leave_the_network() -> bool:
    """Whether this process has no network now: a namespace of its own, where it is allowed to make one."""
    return any(libc.unshare(flags) == 0 for flags in (CLONE_NEWNET, CLONE_NEWUSER | CLONE_NEWNET))


def start(request: dict, fds: list[int], running: dict[int, str]) -> None:
    pid = os.fork()
    if pid:
        running[pid] = request["exec"]
        for fd in fds:
            os.close(fd)
        return
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    for target, fd in enumerate(fds):
        os.dup2(fd, target)
    os.closerange(3, 256)
    try:
        os.chdir(request["cwd"])
        os.execvpe(request["argv"][0], request["argv"], request["env"])
    except OSError as error:
        os.write(2, f"{request['argv'][0]}: {error}\n".encode())
    os._exit(127)


def reap(running: dict[int, str]) -> list[tuple[str, int]]:
    """The commands that have ended, and how; orphans that came to us are only buried."""
    ended = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        if pid in running:
            ended.append((running.pop(pid), os.waitstatus_to_exitcode(status)))


def end(status: int) -> int:
    """Kill whatever is below, until nothing is, and leave nothing on disk."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    while True:
        with open(f"/proc/self/task/{os.getpid()}/children") as children:
            for pid in children.read().split():
                os.kill(int(pid), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            shutil.rmtree(sys.argv[2], ignore_errors=True)
            return status % 256


if __name__ == "__main__":
    sys.exit(main(socket.socket(fileno=int(sys.argv[1])), "--no-network" not in sys.argv))
