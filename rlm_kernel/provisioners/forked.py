"""Kernels forked from a fork server: one server for each kind of interpreter, started when it is first needed."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from weakref import WeakSet

import psutil

from rlm_kernel._async import seconds_at_exit
from rlm_kernel.provisioners.environ import scrub_environ
from rlm_kernel.provisioners.local_base import private_prefix

_SERVER = ("-P", "-m", "rlm_kernel.provisioners.fork_server")
_MAX_SERVERS = 4
_SEED = "PYTHONHASHSEED"
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "DYLD_", "MALLOC_", "GLIBC_", "HOME", "VIRTUAL_ENV")
"""Variables that an interpreter, or the C library, reads when it starts: kernels of one server have the same."""
_INHERITED = ("Umask", "Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "CapEff", "CapBnd", "Cpus_allowed_list")
"""Lines of /proc/self/status: what a fork has of its server, and a new process of its host."""
_WAKE_SECONDS = 0.25
_START_SECONDS = 20.0
_END_SECONDS = 8.0
"""Longer than the server needs for the processes that a kernel left."""
_LOST = 128 + signal.SIGKILL
"""The exit status of a kernel whose server has ended: the kernel was killed with it."""

_servers: dict[tuple[Any, ...], _Server] = {}
_lock = threading.Lock()


class ForkedProcess:
    """A kernel that was forked. It lives until it ends by itself, is killed, or this process ends.

    Attributes:
        pid: of the kernel.
        returncode: its exit status, as a shell reports it; None while it runs.
        is_lost: whether its server has ended before it, so that nothing has killed what it started.
    """

    stdin = stdout = stderr = None

    def __init__(self, link: socket.socket, pid: int, server: _Server) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.is_lost = False
        self._server = server
        self._link = link
        self._process: psutil.Process | None = None
        with contextlib.suppress(psutil.Error):
            self._process = psutil.Process(pid)
        server.kernels.add(self)

    def poll(self) -> int | None:
        """The exit status, when the kernel has ended and all that it started."""
        if self.returncode is None:
            with contextlib.suppress(BlockingIOError):
                try:
                    reported = self._link.recv(64)
                except ConnectionError:
                    reported = b""
                self.is_lost = not reported
                self.returncode = int(reported or _LOST)
        return self.returncode

    async def wait(self) -> int:
        """Wait for the end of the kernel and of all that it started."""
        if self.poll() is None:
            await _until_readable(self._link)
        return self.poll() or 0

    async def kill(self) -> None:
        """Kill the kernel and all that it started; the whole server if that does not do it."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_WR)
        if not await self._server.has_answered(self._link, _END_SECONDS):
            self._server.kill()  # a cell stops it again and again
        await self.wait()

    def send_signal(self, number: int) -> None:
        """Send a signal to the kernel."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill_lost(self) -> None:
        """Kill a kernel that has outlived its server, and what it started."""
        if self._process is not None:
            with contextlib.suppress(psutil.Error):
                for process in (self._process, *self._process.children(recursive=True)):
                    process.kill()

    def close(self) -> None:
        """Let go of the kernel. It is killed if it lives."""
        self._link.close()
        self._server.kernels.discard(self)


async def _until_readable(link: socket.socket) -> None:
    """Return when there is something to read. Nothing is read, so nothing is lost when this is cancelled."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    watched = link.dup()  # several may wait
    loop.add_reader(watched, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(watched)
        watched.close()


async def fork(
    python: str,
    request: Mapping[str, Any],
    output: IO[bytes],
    listening: Sequence[socket.socket],
    group: Sequence[str],
) -> ForkedProcess:
    """Fork a kernel.

    Args:
        python: the executable.
        request: `argv`, `env`, `cwd`, `memory`, `directory`, `addresses` and `connection`, as `fork_server` takes them.
        output: where the kernel's standard output and error go.
        listening: the kernel's sockets, in the order of `addresses`.
        group: the kernel's control group.

    Raises:
        OSError: there is no fork server, or it does not answer.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    try:
        with theirs, _file_of(request) as file:
            server = _server(_kind(python, request["env"]))
            sent: list[Any] = [file, theirs, output, *listening]
            about = {"directory": request["directory"], "group": group}
            await server.send(json.dumps(about).encode(), [one.fileno() for one in sent])
        return ForkedProcess(ours, await server.reply(ours), server)
    except BaseException:
        ours.close()
        raise


def _file_of(request: Mapping[str, Any]) -> IO[bytes]:
    """A file in memory. The server does not read it, so it keeps nothing of a kernel's environment."""
    file = os.fdopen(os.memfd_create("request"), "w+b")
    file.write(json.dumps(request).encode())
    file.seek(0)
    return file


def can_fork(environ: Mapping[str, str], added: Mapping[str, str]) -> bool:
    """Whether a kernel can be forked here.

    Args:
        environ: variables of every kernel.
        added: variables that the user adds. A kernel whose interpreter has to start with them is not forked.
    """
    if sys.platform != "linux" or any(name.startswith(_READ_AT_START) for name in added.keys() - {_SEED}):
        return False
    return len(_busy()) < _MAX_SERVERS or _kind(sys.executable, {**environ, **added}) in _servers


def _kind(python: str, env: Mapping[str, str]) -> tuple[Any, ...]:
    """What the kernels of one server have in common: interpreter, its variables, user, limits and namespaces."""
    status = Path("/proc/self/status").read_text("utf-8").splitlines()
    limits = (resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_"))
    return (
        python,
        tuple(sorted((name, value) for name, value in env.items() if name.startswith(_READ_AT_START))),
        *(line for line in status if line.startswith(_INHERITED)),
        os.getpriority(os.PRIO_PROCESS, 0),
        *limits,
        *(str(path.readlink()) for path in Path("/proc/self/ns").iterdir()),
    )


def _busy() -> list[_Server]:
    return [server for server in _servers.values() if server.kernels]


def _server(kind: tuple[Any, ...]) -> _Server:
    """The server of this kind. A new one takes the place of one without kernels when there are too many."""
    with _lock:
        for other, server in list(_servers.items()):
            if not server.is_alive() or (
                other != kind and kind not in _servers and len(_servers) >= _MAX_SERVERS and not server.kernels
            ):
                _servers.pop(other).close()
        if kind not in _servers:
            _servers[kind] = _Server(kind[0], dict(kind[1]))
        return _servers[kind]


class _Server:
    """The running fork server, and the way to it.

    Attributes:
        kernels: those that were forked and not closed.
    """

    def __init__(self, python: str, variables: Mapping[str, str]) -> None:
        self.kernels: WeakSet[ForkedProcess] = WeakSet()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        with theirs, os.fdopen(os.pidfd_open(os.getpid()), "rb", buffering=0) as host:
            passed = theirs.fileno(), host.fileno()
            self._process = subprocess.Popen(  # noqa: S603 (our own module)
                [python, *_SERVER, *map(str, passed), str(private_prefix())],
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**scrub_environ(os.environ), **variables},
                cwd="/",
                start_new_session=True,  # a signal to the host's group must not end what watches the kernels
            )

    def is_alive(self) -> bool:
        """Whether it can fork."""
        return self._process.poll() is None

    async def send(self, about: bytes, descriptors: Sequence[int]) -> None:
        """Send a request; wait while too many are on their way."""
        async with asyncio.timeout(_START_SECONDS):
            while True:
                with contextlib.suppress(BlockingIOError):
                    socket.send_fds(self._control, [about], descriptors)
                    return
                await asyncio.sleep(0.01)

    async def reply(self, link: socket.socket) -> int:
        """The number that the server sends over a link of a new kernel. The first one comes after its imports."""
        if not await self.has_answered(link, _START_SECONDS):
            self.kill()
        if not (reported := link.recv(64)):
            raise ConnectionError("the process that kernels are forked from has ended")
        return int(reported)

    async def has_answered(self, link: socket.socket, seconds: float) -> bool:
        """Wait for an answer over a link. A server that a cell has stopped is continued meanwhile."""
        for _ in range(int(seconds / _WAKE_SECONDS)):
            self.wake()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAKE_SECONDS):
                    await _until_readable(link)
                    return True
        return False

    def wake(self) -> None:
        """Let it continue: a cell may have stopped it."""
        if self.is_alive():
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it and everything below it. Its kernels are lost, and made again by their runs."""
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    process.kill()
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it, and with it all its kernels."""
        with contextlib.suppress(OSError):
            self._control.send(b"null")
        self._control.close()
        self.wake()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def close_at_exit(self) -> None:
        """End it, without waiting if Ctrl-C ends the process: it ends by itself, as after `kill -9` of its host."""
        if (seconds := seconds_at_exit(_END_SECONDS)) == _END_SECONDS:
            self.close()
            return
        self._control.close()
        self.wake()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def forget(self) -> None:
        """Let go of a server that another process started."""
        self._control.close()
        self._process.returncode = 0  # nothing to wait for


@atexit.register
def _close_servers() -> None:
    while _servers:
        _servers.popitem()[1].close_at_exit()


def _forget_servers() -> None:
    """In a fork of this process: these servers are not its own, and must not outlive their host by its copies."""
    for server in _servers.values():
        server.forget()
    _servers.clear()
    _lock.release()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forget_servers)
