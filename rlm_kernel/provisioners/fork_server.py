"""The process that the local kernels of one host are forked from. It watches all of them.

    python -P -m rlm_kernel.provisioners.fork_server CONTROL_FD HOST_FD PRIVATE

It imports what a kernel imports, once, and has neither a thread nor a ZeroMQ context. A fork of it is a kernel that
answers after 50 ms; a new process takes 200 ms, nearly all of it imports.

The host sends requests over the socket `CONTROL_FD` (`forked.py`). A request is the kernel's private directory, its
control group and descriptors: the rest of the request as a file, which only the fork reads, the kernel's link to the
host, its log, and its listening sockets. Over the link the host learns the process id and later the exit status. When
the host closes its end, the kernel and all that it started is killed. When `CONTROL_FD` ends, the host has ended, and
so does everything below this process. Then its directories are removed, whose paths begin with `PRIVATE`; `HOST_FD`
is the pidfd of the host. A host that
lives on sends `null` first, and removes its directories itself. A kernel may stop this process: it continues when the
host ends.

Orphans below this process become its children (`PR_SET_CHILD_SUBREAPER`). When a kernel ends, its control group is
killed, and every child that does not belong to a running kernel: it is not one, is not in the group of one, and does
not have the private directory of one in its environment.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import locale
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from rlm_kernel.guest_sources import GUEST_MODULE, guest_sources
from rlm_kernel.provisioners import cgroups, launcher, strays
from rlm_kernel.untrusted import landlock, seccomp

_PRELOADED = """ipykernel.kernelapp ipykernel.ipkernel ipykernel.zmqshell ipykernel.iostream ipykernel.subshell_manager
    ipykernel.debugger comm jedi psutil pdb cmd bdb code faulthandler unicodedata tornado.gen tornado.locks
    tornado.queues tornado.platform.asyncio IPython.core.completer IPython.core.completerlib IPython.core.debugger
    IPython.core.history IPython.core.magics IPython.core.oinspect IPython.extensions.storemagic
    IPython.utils.wildcard concurrent.futures.thread mmap""".split()
"""What ipykernel and the guest import until the kernel answers."""
_MAX_REQUEST_BYTES = 16_384
_MAX_DESCRIPTORS = 8
_SWEEP_SECONDS = 5.0
"""How long the processes that a kernel left are killed before its end is reported in spite of them."""
_GROUP_SECONDS = 1.0
_HOST_SECONDS = 1.0
"""How long a host that closed its end of the socket may take to end."""
_UNHANDLED = {signal.SIGKILL, signal.SIGSTOP}


class _Kernel:
    """A kernel of ours.

    Attributes:
        pid: its process.
        link: to the host.
        directory: its private directory.
        group: its control group.
        status: of its exit; None while it runs.
        ended_at: when it ended, by the monotonic clock.
        is_watched: whether the host has not closed its end of the link yet.
    """

    def __init__(self, pid: int, link: socket.socket, directory: str, group: list[str]) -> None:
        self.pid = pid
        self.link = link
        self.directory = directory
        self.group = group
        self.status: int | None = None
        self.ended_at = 0.0
        self.is_watched = True

    def end_group(self) -> None:
        """Kill what it started and did not leave its control group."""
        if self.group and cgroups.end(self.group, _GROUP_SECONDS):
            self.group = []

    def tell(self, number: int) -> None:
        """Send the host a number, if it wants to know."""
        with contextlib.suppress(OSError):
            self.link.send(f"{number}\n".encode())


class ForkServer:
    """Forks kernels, kills them and reports their end.

    Args:
        control: where the requests come from.
        host: pidfd of the host.
        handlers: of signals, for the kernels.
        private: how the paths of the host's private directories begin.
    """

    def __init__(self, control: socket.socket, host: int, handlers: dict[signal.Signals, Any], private: Path) -> None:
        self._control = control
        self._handlers = handlers
        self._private = private
        self._host = host
        self._is_closed = False  # by the host, which lives
        self._kernels: dict[int, _Kernel] = {}
        self._pid = os.getpid()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._poll = select.poll()
        for watched in (control, self._wake):
            self._poll.register(watched, select.POLLIN)

    def run(self) -> None:
        """Serve until the host has ended."""
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            while self._serve():
                pass
        finally:
            self._end_all()

    def _serve(self) -> bool:
        """Do what there is to do, or wait for it. False: the host has ended."""
        for fd, _ in self._poll.poll(0 if self._ended() else None):
            if fd == self._control.fileno() and not self._take_request():
                return False
            if fd in self._kernels:
                self._kill(self._kernels[fd])
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(4096)
        self._reap()
        self._report()
        return True

    def _ended(self) -> list[_Kernel]:
        return [kernel for kernel in self._kernels.values() if kernel.status is not None]

    def _running(self) -> list[_Kernel]:
        return [kernel for kernel in self._kernels.values() if kernel.status is None]

    def _take_request(self) -> bool:
        """Fork one kernel. False: the host has ended."""
        about, fds, _, _ = socket.recv_fds(self._control, _MAX_REQUEST_BYTES, _MAX_DESCRIPTORS)
        if about in {b"", b"null"}:
            self._is_closed = about == b"null"
            return False
        for fd in fds:
            os.set_inheritable(fd, False)
        request, link, output, *listening = fds
        pid = os.fork()
        if pid == 0:
            os.close(link)
            self._become_kernel(request, output, listening)
        for fd in (request, output, *listening):
            os.close(fd)
        kernel = self._kernels[link] = _Kernel(pid, socket.socket(fileno=link), **json.loads(about))
        self._poll.register(link, select.POLLIN)
        cgroups.add(kernel.group, pid)  # before the host knows of it and sends code; meanwhile ipykernel starts
        kernel.tell(pid)
        return True

    def _become_kernel(self, request_fd: int, output: int, listening: list[int]) -> NoReturn:
        """Turn this fork of the server into a kernel with its own group, environment, directory and limits."""
        signal.set_wakeup_fd(-1)
        for handled, handler in self._handlers.items():
            signal.signal(handled, handler)
        for ours in (self._control, self._wake, self._woken, *(kernel.link for kernel in self._kernels.values())):
            ours.close()
        os.close(self._host)
        for number in (1, 2):
            os.dup2(output, number)
        os.close(output)
        with os.fdopen(request_fd, "rb") as file:
            request = json.load(file)
        os.environ.clear()
        os.environ.update(request["env"])
        time.tzset()
        with contextlib.suppress(locale.Error):  # Python does without a locale that is not installed, too
            locale.setlocale(locale.LC_CTYPE, "")
        tempfile.tempdir = None
        os.chdir(request["cwd"])
        if request["paths"] is not None:
            landlock.confine(request["paths"]["read"], request["paths"]["write"])
            seccomp.confine(alone=True)
        launcher.become_kernel(
            self._pid,
            request["argv"],
            memory=request["memory"],
            listening=dict(zip(request["addresses"], listening, strict=True)),
            connection=request["connection"],
            hidden=request["hidden"],
        )

    def _kill(self, kernel: _Kernel) -> None:
        """Kill a kernel whose host has closed its end of the link, or has ended."""
        if kernel.is_watched:
            kernel.is_watched = False
            self._poll.unregister(kernel.link)
        if kernel.status is None:  # not reaped, so the number is still its own
            _kill(kernel.pid)

    def _reap(self) -> None:
        """Note the kernels that have ended, and reap orphans."""
        running = {kernel.pid: kernel for kernel in self._running()}
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                if (kernel := running.pop(ended[0], None)) is not None:
                    kernel.status, kernel.ended_at = launcher.exit_status(ended[1]), time.monotonic()

    def _report(self) -> None:
        """Tell the host of the kernels that have ended and left nothing."""
        if not (ended := self._ended()):
            return
        for kernel in ended:
            kernel.end_group()
        swept = not self._kill_strays()
        for kernel in ended:
            if swept or time.monotonic() > kernel.ended_at + _SWEEP_SECONDS:
                assert kernel.status is not None
                kernel.tell(kernel.status)
                self._kill(kernel)
                del self._kernels[kernel.link.fileno()]
                kernel.link.close()

    def _kill_strays(self) -> bool:
        """Kill the orphans that do not belong to a running kernel. Whether there were any."""
        running = self._running()
        kept = {kernel.pid for kernel in running}.union(*(cgroups.processes(kernel.group) for kernel in running))
        directories = [os.fsencode(kernel.directory) for kernel in running]
        left = [pid for pid in launcher.children() if pid not in kept and not strays.mentions(pid, directories)]
        for pid in left:
            _kill(pid)
        return bool(left)

    def _end_all(self) -> None:
        """Kill everything below this process, and remove the directories of the kernels."""
        for kernel in self._kernels.values():
            self._kill(kernel)
            kernel.end_group()
        until = time.monotonic() + _SWEEP_SECONDS
        while (self._running() or launcher.children()) and time.monotonic() < until:
            self._kill_strays()
            self._reap()
        for kernel in self._kernels.values():
            shutil.rmtree(kernel.directory, ignore_errors=True)
        if not self._is_closed and select.select([self._host], [], [], _HOST_SECONDS)[0]:
            self._remove_private()

    def _remove_private(self) -> None:
        """Remove the directories of a host that was killed: of this server's kernels, and of any others."""
        for path in self._private.parent.iterdir():
            if path.name.startswith(self._private.name):
                shutil.rmtree(path, ignore_errors=True)


def _kill(pid: int) -> None:
    """Kill a child of ours that was not reaped, and the group that it leads."""
    for kill in (os.kill, os.killpg):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def main(control_fd: int, host: int, private: str) -> NoReturn:
    """Serve the host at the other end of `control_fd` until it ends. `host`, `private`: as of `ForkServer`."""
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals() - _UNHANDLED}
    launcher.ignore_signals()
    launcher.set_child_subreaper()
    launcher.continue_when_host_ends()
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):  # another version has no such module
            importlib.import_module(name)
    del sys.modules["debugpy"]
    launcher.prepare_forks(guest_sources().values(), f"{GUEST_MODULE}.py")
    gc.collect()
    gc.freeze()
    try:
        ForkServer(socket.socket(fileno=control_fd), host, handlers, Path(private)).run()
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
