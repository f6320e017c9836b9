"""The relay's process on another machine: its streams over OpenSSH's client."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shlex
import shutil
import zlib
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Self

from rlm_kernel.errors import ConfigError
from rlm_kernel.provisioners.environ import scrub_environ
from rlm_kernel.provisioners.relay.host_end import source

READ_BYTES = 2**18
MAX_STDERR_BYTES = 4_000
END_SECONDS = 5.0
FAILED = 255
"""The exit status of ssh when it cannot connect, or has lost the connection."""
OPTIONS = (
    *("-T", "-a", "-x", "-e", "none"),  # no terminal, no forwarding of agent and display, no escapes in the stream
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ClearAllForwardings=yes"),
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"),
)


class SSHRemote:
    """A `Remote` of the relay. Made by `start`, in the engine's loop.

    Attributes:
        stderr: the end of what ssh and the remote process wrote to their standard error.
    """

    def __init__(self, process: Process) -> None:
        self.stderr = b""
        self._process = process
        self._reader = asyncio.create_task(self._read_stderr())

    @classmethod
    async def start(cls, host: str, python: str, env: Mapping[str, str], options: Sequence[str]) -> Self:
        """Run `remote_end.py` there. This does not wait for the connection.

        Args:
            host: as ssh takes it, e.g. an alias of the user's configuration.
            python: a Python with ipykernel there.
            env: the environment variables of the kernel. They travel over the connection, not on a command line.
            options: more options of ssh.

        Raises:
            ConfigError: there is no ssh.
        """
        ssh = shutil.which("ssh")
        if ssh is None:
            raise ConfigError("environment='ssh' needs OpenSSH's client: install openssh-client.")
        command = (ssh, *OPTIONS, *options, "--", host, remote_command(python))
        ours = {name: value for name, value in os.environ.items() if name == "SSH_AUTH_SOCK"}
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env={**scrub_environ(os.environ), **ours},
            start_new_session=True,  # Ctrl-C in a terminal is for us
        )
        remote = cls(process)
        with contextlib.suppress(OSError):  # the end of ssh is reported where it is read
            await remote.write(json.dumps(dict(env)).encode() + b"\n")
        return remote

    @property
    def has_failed(self) -> bool:
        """Whether ssh could not connect, or has lost the connection."""
        return self._process.returncode == FAILED

    async def write(self, data: bytes) -> None:
        """Write to the relay's standard input.

        Raises:
            OSError: it has ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces of the relay's standard output, until it or the connection ends."""
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(READ_BYTES):
            yield data
        await asyncio.wait({self._reader, asyncio.ensure_future(self._process.wait())}, timeout=END_SECONDS)

    async def close(self) -> None:
        """Close its input, which ends the kernel and the connection. Idempotent."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:  # the connection is dead; there the silence ends the kernel
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._reader.cancel()

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(MAX_STDERR_BYTES):
            self.stderr = (self.stderr + data)[-MAX_STDERR_BYTES:]


def remote_command(python: str) -> str:
    """A command for any login shell: it has one line, and no character that a shell changes inside of quotes.

    The process reads a line with environment variables, and is the relay from then on.
    """
    packed = base64.b64encode(zlib.compress(source("relay/remote_end.py").encode())).decode()
    steps = (
        "import base64,json,os,sys,zlib",
        'os.environ.update(json.loads(b"".join(iter(lambda:os.read(0,1),b"\\n"))))',
        f'exec(zlib.decompress(base64.b64decode("{packed}")))',
    )
    return f"exec {shlex.quote(python)} -u -c '{';'.join(steps)}' --own-directory"
