"""Kernels forked from a fork server: one server for each Python, started when it is first needed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rlm_kernel.provisioners.environ import scrub_environ

_SERVER = ("-P", "-m", "rlm_kernel.provisioners.fork_server")
_MAX_SERVERS = 4
"""Interpreters that differ in what is fixed when Python starts, such as the seed of the hashes."""
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "DYLD_", "HOME", "VIRTUAL_ENV")
"""Variables that an interpreter reads when it starts: kernels of one server have the same."""
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

    def __init__(self, link: socket.socket, pid: int) -> None:
        self.pid = pid
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
            _server(python, request["env"]).send(request, [theirs, output, *listening])
            theirs.close()
            reported = await asyncio.get_running_loop().sock_recv(ours, 64)
        except BaseException:
            ours.close()
            raise
    if not reported:
        ours.close()
        raise ConnectionError("the process that kernels are forked from has ended")
    return ForkedProcess(ours, int(reported))


def can_fork(env: Mapping[str, str]) -> bool:
    """Whether kernels are forked here, and there is a server for such an interpreter or room for one more."""
    return sys.platform == "linux" and (len(_servers) < _MAX_SERVERS or _kind(sys.executable, env) in _servers)


def _kind(python: str, env: Mapping[str, str]) -> tuple[Any, ...]:
    return python, *sorted((name, value) for name, value in env.items() if name.startswith(_READ_AT_START))


def _server(python: str, env: Mapping[str, str]) -> _Server:
    kind = _kind(python, env)
    with _lock:
        if kind not in _servers or not _servers[kind].is_alive():
            _servers[kind] = _Server(python, dict(kind[1:]))
        return _servers[kind]


class _Server:
    """The running fork server, and the way to it."""

    def __init__(self, python: str, variables: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
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

    def send(self, request: Mapping[str, Any], descriptors: Sequence[Any]) -> None:
        socket.send_fds(self._control, [json.dumps(request).encode()], [one.fileno() for one in descriptors])


def _forget_servers() -> None:
    """In a fork of this process: these servers are not its own, and must not outlive their host by its copies."""
    for server in _servers.values():
        server._control.close()
    _servers.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_forget_servers)
