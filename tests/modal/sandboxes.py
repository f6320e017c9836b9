"""Emulated sandboxes: a tree of local processes with an environment, a home and a life of its own.

What is like Modal's: the environment is the image's and nothing of the host's; `exec` starts further commands with
binary streams of any length; the first command, `terminate`, the timeout and idleness end all of it. With
`block_network` there is no network, where the machine lets us make a namespace. What is not: the file system and the
user are the host's.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from modal_proto import api_pb2

INIT = Path(__file__).with_name("sandbox_init.py")
RETAINED = 1 << 20
"""Bytes of output that are kept after they were read: a client whose stream broke asks for them again."""
READ_AT_ONCE = 1 << 18

Result = api_pb2.GenericResult


class Output:
    """What a command writes to a stream, to be read from any offset that is not long gone."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._data, self._start, self._ended = bytearray(), 0, False
        self._more = asyncio.Condition()
        self._task = asyncio.create_task(self._collect(reader))

    async def _collect(self, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(READ_AT_ONCE):
            async with self._more:
                self._data += chunk
                self._more.notify_all()
        async with self._more:
            self._ended = True
            self._more.notify_all()

    async def read(self, offset: int) -> AsyncIterator[bytes]:
        while True:
            async with self._more:
                while not self._ended and offset >= self._start + len(self._data):
                    await self._more.wait()
                assert offset >= self._start, "asked for output that was read long ago"
                chunk = bytes(memoryview(self._data)[offset - self._start :][:READ_AT_ONCE])
            if not chunk:
                return
            yield chunk
            offset += len(chunk)
            gone = max(0, offset - RETAINED - self._start)
            del self._data[:gone]
            self._start += gone


class Command:
    """A process of a sandbox.

    Attributes:
        ended: its exit status once it has ended; negative for a signal.
        written: bytes that its stdin took.
        largest: the longest piece of stdin that came at once.
    """

    def __init__(self, argv: Sequence[str], stdin: asyncio.StreamWriter, out: Output, err: Output) -> None:
        self.argv, self.stdin, self.stdout, self.stderr = list(argv), stdin, out, err
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.written = self.largest = 0

    async def write(self, offset: int, data: bytes, *, eof: bool) -> None:
        """Idempotent, as Modal's: what was written before is not written again."""
        new = data[max(0, self.written - offset) :]
        self.largest = max(self.largest, len(data))
        if new:
            self.stdin.write(new)
            self.written += len(new)
            await self.stdin.drain()
        if eof:
            self.stdin.close()


class Sandbox:
    """One sandbox. Made by `start`; `result` is set when it has ended.

    Attributes:
        definition: what the client asked for.
        isolated: whether it really has no network.
        commands: the first one under "", then those of `exec` by their ids.
    """

    def __init__(self, sandbox_id: str, definition: api_pb2.Sandbox, environ: Mapping[str, str]) -> None:
        self.id, self.task_id = sandbox_id, sandbox_id.replace("sb-", "ta-", 1)
        self.definition, self.commands, self.isolated = definition, {}, False
        self.home = Path(tempfile.mkdtemp(prefix="sb-"))
        self.environ = {**environ, "HOME": str(self.home), "TMPDIR": str(self.home), "MODAL_SANDBOX_ID": self.id}
        self.result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._init: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._life: asyncio.Task[None] | None = None
        self._busy = asyncio.Condition()
        self._ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        blocked = self.definition.network_access.network_access_type == api_pb2.NetworkAccess.BLOCKED
        arguments = [str(INIT), str(theirs.fileno()), str(self.home), *(["--no-network"] if blocked else [])]
        self._init = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", *arguments, env={}, pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL
        )
        theirs.close()
        self._control = ours
        if self.result.done():  # it was ended while it was made
            self._init.terminate()
        asyncio.get_running_loop().add_reader(ours, self._hear)
        self.isolated = await self._ready
        await self.exec("", list(self.definition.entrypoint_args) or ["sleep", "172800"], {}, None)
        self._life = asyncio.create_task(self._live())

    async def exec(self, name: str, argv: Sequence[str], environ: Mapping[str, str], cwd: str | None) -> None:
        pipes = [os.pipe() for _ in range(3)]
        env = {**self.environ, **environ, "TMPDIR": str(self.home)}  # no other folder of the host is in a sandbox
        request = {"exec": name, "argv": list(argv), "env": env, "cwd": cwd or str(self.home)}
        fds = [pipes[0][0], pipes[1][1], pipes[2][1]]
        outputs = [Output(await reading(pipe[0])) for pipe in pipes[1:]]
        self.commands[name] = Command(argv, await writing(pipes[0][1]), *outputs)  # known before it can end
        socket.send_fds(self._control, [json.dumps(request).encode()], fds)
        for fd in fds:
            os.close(fd)

    def end(self, status: Result.GenericStatus, code: int) -> None:
        """End all its processes; the first reason is the one that is told."""
        if not self.result.done():
            self.result.set_result(Result(status=status, exitcode=code))
        if self._init is not None and self._init.returncode is None:
            self._init.terminate()

    async def gone(self) -> None:
        """Return when no process is left, however far its start had come."""
        if self._init is not None:
            await self._init.wait()
        if self._life is not None:
            await self._life
        for command in self.commands.values():
            command.stdin.close()
        self._hang_up()

    def _hang_up(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            asyncio.get_running_loop().remove_reader(control)
            control.close()

    async def _live(self) -> None:
        idle = asyncio.create_task(self._idle())
        limits = [idle, asyncio.create_task(self._init.wait())]
        await asyncio.wait(limits, timeout=self.definition.timeout_secs or None, return_when=asyncio.FIRST_COMPLETED)
        if idle.done():
            self.end(Result.GENERIC_STATUS_TERMINATED, 137)
        elif self._init.returncode is None:
            self.end(Result.GENERIC_STATUS_TIMEOUT, 124)
        code = await self._init.wait()
        idle.cancel()
        self.end(Result.GENERIC_STATUS_FAILURE if code else Result.GENERIC_STATUS_SUCCESS, code)
        for command in self.commands.values():
            if not command.ended.done():
                command.ended.set_result(-9)

    async def _idle(self) -> None:
        """Return when no command of `exec` ran for so long as the client allows."""
        while True:
            async with self._busy:
                await self._busy.wait_for(lambda: not self._running())
            try:
                async with asyncio.timeout(self.definition.idle_timeout_secs or None), self._busy:
                    await self._busy.wait_for(self._running)
            except TimeoutError:
                return

    def _running(self) -> bool:
        return any(name and not command.ended.done() for name, command in self.commands.items())

    def _hear(self) -> None:
        message = self._control.recv(1 << 16)
        if not message:
            self._hang_up()
            return
        said = json.loads(message)
        if "isolated" in said:
            self._ready.set_result(said["isolated"])
        elif not self.commands[said["exec"]].ended.done():
            self.commands[said["exec"]].ended.set_result(said["status"])
            asyncio.create_task(self.tell())  # noqa: RUF006 (it ends at once)

    async def tell(self) -> None:
        """A command began or ended: look again whether the sandbox is idle."""
        async with self._busy:
            self._busy.notify_all()


async def reading(fd: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=READ_AT_ONCE)
    pipe = os.fdopen(fd, "rb", 0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader


async def writing(fd: int) -> asyncio.StreamWriter:
    loop, pipe = asyncio.get_running_loop(), os.fdopen(fd, "wb", 0)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, pipe)
    return asyncio.StreamWriter(transport, protocol, None, loop)
