"""The process that the local kernels of one host are forked from. It watches all of them.

    python -P -m rlm_kernel.provisioners.fork_server CONTROL_FD

It imports what a kernel imports, once, and has neither a thread nor a ZeroMQ context. A fork of it is a kernel that
answers after 50 ms; a new process takes 200 ms, nearly all of it imports.

The host sends requests over the socket `CONTROL_FD` (`forked.py`). Each carries descriptors: the kernel's link to the
host, its log, and its listening sockets. Over the link the host learns the process id and later the exit status; when
the host closes its end, the kernel and all that it started is killed. When `CONTROL_FD` ends, the host has ended, and
so does everything below this process.

Each kernel is the reaper of the orphans below it, so a process that leaves the kernel's group is still found. When the
kernel ends, these processes become our children. A child of ours that is not a kernel is killed.
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
from typing import Any, NoReturn

from rlm_kernel.provisioners import launcher

_PRELOADED = """ipykernel.kernelapp ipykernel.ipkernel ipykernel.zmqshell ipykernel.iostream ipykernel.subshell_manager
    ipykernel.debugger comm jedi psutil pdb cmd bdb code faulthandler unicodedata tornado.gen tornado.locks
    tornado.queues tornado.platform.asyncio IPython.core.completer IPython.core.completerlib IPython.core.debugger
    IPython.core.history IPython.core.magics IPython.core.oinspect IPython.extensions.storemagic
    IPython.utils.wildcard""".split()
"""What ipykernel imports until it answers."""
_MAX_REQUEST = 1_000_000
_MAX_DESCRIPTORS = 7
_SWEEP_SECONDS = 5.0
"""How long processes that a kernel left are killed before its end is reported in spite of them."""


class _Kernel:
    """A kernel of ours.

    Attributes:
        pid: its process.
        link: to the host.
        directory: removed when the host has ended.
        status: of its exit; None while it runs.
    """

    def __init__(self, pid: int, link: socket.socket, directory: str) -> None:
        self.pid = pid
        self.link = link
        self.directory = directory
        self.status: int | None = None
        self.ended_at = 0.0


class ForkServer:
    """Forks kernels, kills them and reports their end.

    Args:
        control: where the requests come from.
        handlers: of signals, for the kernels.
    """

    def __init__(self, control: socket.socket, handlers: dict[signal.Signals, Any]) -> None:
        self._control = control
        self._handlers = handlers
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
        while True:
            ended = any(kernel.status is not None for kernel in self._kernels.values())
            for fd, _ in self._poll.poll(0 if ended else None):
                if fd == self._control.fileno() and not self._take_request():
                    return self._end_all()
                if fd in self._kernels:
                    self._kill(self._kernels[fd])
            with contextlib.suppress(BlockingIOError):
                self._wake.recv(4096)
            self._reap()
            self._report()

    def _take_request(self) -> bool:
        """Fork one kernel. False: the host has ended."""
        data, fds, _, _ = socket.recv_fds(self._control, _MAX_REQUEST, _MAX_DESCRIPTORS)
        if not data:
            return False
        request = json.loads(data)
        link, output, *listening = fds
        pid = os.fork()
        if pid == 0:
            os.close(link)
            self._become_kernel(request, output, listening)
        for fd in (output, *listening):
            os.close(fd)
        kernel = _Kernel(pid, socket.socket(fileno=link), request["directory"])
        self._kernels[link] = kernel
        self._poll.register(link, select.POLLIN)
        _tell(kernel, pid)
        return True

    def _become_kernel(self, request: dict[str, Any], output: int, listening: list[int]) -> NoReturn:
        """Turn this fork of the server into a kernel of its own group, environment, directory and limits."""
        signal.set_wakeup_fd(-1)
        for handled, handler in self._handlers.items():
            signal.signal(handled, handler)
        launcher.set_child_subreaper()
        for ours in (self._control, self._wake, self._woken, *(kernel.link for kernel in self._kernels.values())):
            ours.close()
        for number in (1, 2):
            os.dup2(output, number)
        os.close(output)
        os.environ.clear()
        os.environ.update(request["env"])
        time.tzset()
        locale.setlocale(locale.LC_CTYPE, "")
        tempfile.tempdir = None
        os.chdir(request["cwd"])
        launcher.become_kernel(
            self._pid,
            request["argv"],
            memory=request["memory"],
            listening=dict(zip(request["addresses"], listening, strict=True)),
            connection=request["connection"],
        )

    def _kill(self, kernel: _Kernel) -> None:
        """The host has closed its end of the link."""
        self._poll.unregister(kernel.link)
        for kill in (os.kill, os.killpg):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(kernel.pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Note the kernels that have ended; bury what they left."""
        running = {kernel.pid: kernel for kernel in self._kernels.values() if kernel.status is None}
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                if (kernel := running.pop(ended[0], None)) is not None:
                    kernel.status, kernel.ended_at = launcher.exit_status(ended[1]), time.monotonic()

    def _report(self) -> None:
        """Tell the host of the kernels that have ended and left nothing."""
        ended = [kernel for kernel in self._kernels.values() if kernel.status is not None]
        if not ended:
            return
        swept = not self._kill_strays()
        for kernel in ended:
            if swept or time.monotonic() > kernel.ended_at + _SWEEP_SECONDS:
                assert kernel.status is not None
                _tell(kernel, kernel.status)
                with contextlib.suppress(KeyError):
                    self._poll.unregister(kernel.link)
                del self._kernels[kernel.link.fileno()]
                kernel.link.close()

    def _kill_strays(self) -> bool:
        """Kill our children that are no kernels. Whether there were any."""
        running = {kernel.pid for kernel in self._kernels.values() if kernel.status is None}
        strays = [child for child in launcher.children() if child not in running]
        for pid in strays:
            for kill in (os.kill, os.killpg):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    kill(pid, signal.SIGKILL)
        return bool(strays)

    def _end_all(self) -> None:
        for kernel in self._kernels.values():
            self._kill(kernel)
        until = time.monotonic() + _SWEEP_SECONDS
        while self._kernels and time.monotonic() < until:
            self._reap()
            self._kill_strays()
            for fd in [fd for fd, kernel in self._kernels.items() if kernel.status is not None]:
                shutil.rmtree(self._kernels.pop(fd).directory, ignore_errors=True)
        while self._kill_strays() and time.monotonic() < until:
            self._reap()


def _tell(kernel: _Kernel, number: int) -> None:
    with contextlib.suppress(OSError):  # the host has gone
        kernel.link.send(f"{number}\n".encode())


def main(control_fd: int) -> None:
    """Serve the host at the other end of `control_fd` until it ends."""
    handlers = {
        number: signal.getsignal(number) for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    }
    launcher.ignore_signals()
    launcher.set_child_subreaper()
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):  # another version has no such module
            importlib.import_module(name)
    del sys.modules["debugpy"]
    gc.collect()
    gc.freeze()
    ForkServer(socket.socket(fileno=control_fd), handlers).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
