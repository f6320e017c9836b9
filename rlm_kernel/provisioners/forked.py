"""Kernels forked from a fork server: one server for each Python, started when it is first needed."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

from rlm_kernel.provisioners.environ import scrub_environ

_SERVER = ("-P", "-m", "rlm_kernel.provisioners.fork_server")
_MAX_SERVERS = 4
"""Interpreters that differ in what is fixed when Python starts, such as the seed of the hashes."""
_SEED = "PYTHONHASHSEED"
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "DYLD_", "HOME", "VIRTUAL_ENV")
"""Variables that an interpreter reads when it starts: kernels of one server have the same."""
_END_SECONDS = 5.0
_LOST = 1
"""The exit status of a kernel whose server has ended before it could report one."""

_servers: dict[tuple[Any, ...], _Server] = {}
_lock = threading.Lock()


class ForkedProcess:
    """A kernel that was forked. It lives until it ends by itself, is killed, or this process ends.

    Attributes:
        pid: of the kernel.
        returncode: its exit status, as a shell reports it; None while it runs.
    """

    stdin = stdout = stderr = None

    def __init__(self, link: socket.socket, pid: int, server: _Server) -> None:
        self.pid = pid
        self._server = server
        self.returncode: int | None = None
        self._link = link

    def poll(self) -> int | None:
        """The exit status, when the kernel has ended and all that it started."""
        if self.returncode is None:
            with contextlib.suppress(BlockingIOError):
                try:
                    self.returncode = int(self._link.recv(64) or _LOST)
                except ConnectionError:
                    self.returncode = _LOST
        return self.returncode

    async def wait(self) -> int:
        """Wait for the end of the kernel and of all that it started."""
        if self.poll() is None:
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            watched = self._link.dup()  # two may wait
            loop.add_reader(watched, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(watched)
                watched.close()
        return self.poll() or 0

    def kill(self) -> None:
        """Have the kernel killed, and all that it started. `wait` returns when that is done."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_WR)
        self._server.wake()

    terminate = kill

    def send_signal(self, number: int) -> None:
        """Send a signal to the kernel."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def close(self) -> None:
        """Let go of the kernel. It is killed if it lives."""
        self._link.close()


async def fork(
    python: str,
    request: Mapping[str, Any],
    output: IO[bytes],
    listening: Sequence[socket.socket],
) -> ForkedProcess:
    """Fork a kernel.

    Args:
        python: the executable.
        request: `argv`, `env`, `cwd`, `memory`, `directory`, `addresses` and `connection`, as `fork_server` takes them.
        output: where the kernel's standard output and error go.
        listening: the kernel's sockets, in the order of `addresses`.

    Raises:
        OSError: there is no fork server, or it could not do it.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        ours.setblocking(False)
        try:
            server = _server(python, request["env"])
            server.send(request, [theirs, output, *listening])
            theirs.close()
            reported = await asyncio.get_running_loop().sock_recv(ours, 64)
        except BaseException:
            ours.close()
            raise
    if not reported:
        ours.close()
        raise ConnectionError("the process that kernels are forked from has ended")
    return ForkedProcess(ours, int(reported), server)


def can_fork(environ: Mapping[str, str], added: Mapping[str, str]) -> bool:
    """Whether a kernel can be forked here.

    Args:
        environ: variables of every kernel.
        added: variables that the user adds. A kernel whose interpreter has to start with them is not forked.
    """
    if sys.platform != "linux" or any(name.startswith(_READ_AT_START) for name in added.keys() - {_SEED}):
        return False
    return len(_servers) < _MAX_SERVERS or _kind(sys.executable, {**environ, **added}) in _servers


def _kind(python: str, env: Mapping[str, str]) -> tuple[Any, ...]:
    return python, *sorted((name, value) for name, value in env.items() if name.startswith(_READ_AT_START))


def _server(python: str, env: Mapping[str, str]) -> _Server:
    kind = _kind(python, env)
    with _lock:
        if kind in _servers and not _servers[kind].is_alive():
            _servers.pop(kind).close()
        if kind not in _servers:
            _servers[kind] = _Server(python, dict(kind[1:]))
        return _servers[kind]


class _Server:
    """The running fork server, and the way to it."""

    def __init__(self, python: str, variables: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 (our own module)
                [python, *_SERVER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**scrub_environ(os.environ), **variables},
                cwd="/",
            )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def wake(self) -> None:
        """Let it go on: a cell may have stopped it."""
        if self.is_alive():
            self._process.send_signal(signal.SIGCONT)

    def forget(self) -> None:
        """Let go of a server that another process started."""
        self._control.close()
        self._process.returncode = 0  # nothing to wait for

    def close(self) -> None:
        """End the server, and with it all its kernels."""
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)

    def send(self, request: Mapping[str, Any], descriptors: Sequence[Any]) -> None:
        socket.send_fds(self._control, [json.dumps(request).encode()], [one.fileno() for one in descriptors])


@atexit.register
def _close_servers() -> None:
    while _servers:
        _servers.popitem()[1].close()


def _forget_servers() -> None:
    """In a fork of this process: these servers are not its own, and must not outlive their host by its copies."""
    for server in _servers.values():
        server.forget()
    _servers.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_forget_servers)
