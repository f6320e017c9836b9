"""A relay in a sandbox of a cloud: what Modal, Prime, Daytona and E2B have in common.

A place has a `SandboxRemote` for the streams of the relay in its sandbox, and a `SandboxKernel` for its options. A
sandbox gets no file, variable or key of this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shlex
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rlm_kernel.at_exit import end_at_exit
from rlm_kernel.errors import ConfigError, KernelError
from rlm_kernel.provisioners.relay.host_end import CHUNK_BYTES, source
from rlm_kernel.provisioners.relay.provisioner import RelayedKernel
from rlm_kernel.provisioners.traits import Packages

T = TypeVar("T")

KERNEL_PACKAGES = ("ipykernel>=6.29,!=7.0.*",)
HAS_KERNEL = "python3 -c 'import ipykernel, zmq'"
"""A command that fails where no kernel can be started."""
PATIENCE_SECONDS = 60.0
"""A cloud keeps the input of a process open when its host is killed. So silence ends the kernel."""
LAST_OUTPUT_SECONDS = 2.0
"""How long the stream of an ended sandbox is still read."""
ASK_AGAIN_SECONDS = 5.0
MAX_STDERR_CHARACTERS = 4_000
MAX_PIP_CHARACTERS = 2_000

_endings: set[asyncio.Future[None]] = set()


class SandboxRemote(ABC):
    """A `Remote` of the relay in a sandbox. Made in the engine's loop.

    Args:
        sandbox_id: the cloud's name of the sandbox.

    Attributes:
        why: why the sandbox ended by itself; empty while it runs, and when it is not known.
        stderr: the end of the relay's standard error; empty unless it could not start.
        broken: set when its streams have ended or failed.
    """

    def __init__(self, sandbox_id: str) -> None:
        self.sandbox_id = sandbox_id
        self.why = ""
        self.stderr = ""
        self.broken = asyncio.Event()
        self._pending = bytearray()
        self._flush: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flush.set_result(None)
        self._sandbox_end = asyncio.create_task(self._watch())
        self._stderr_reader = asyncio.create_task(self.read_stderr())
        self._reader: asyncio.Task[Any] | None = None
        self._closed = False
        end_at_exit(self)

    # -- for subclasses

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """Write to the relay's standard input.

        Raises:
            OSError: it has ended, or the cloud cannot be reached.
        """

    @abstractmethod
    def receive(self) -> AsyncIterator[bytes]:
        """The pieces of the relay's standard output. May raise OSError."""

    @abstractmethod
    async def ending(self) -> str:
        """Wait for the end of the sandbox, and say why it ended. Empty: it is not known; this is called again."""

    @abstractmethod
    async def end(self) -> None:
        """End the sandbox, if it can be reached; if not, its timeout ends it."""

    @abstractmethod
    async def read_stderr(self) -> None:
        """Give the relay's standard error to `add_stderr` until it ends."""

    def add_stderr(self, text: str) -> None:
        """Keep a piece of the relay's standard error."""
        self.stderr = (self.stderr + text)[-MAX_STDERR_CHARACTERS:]

    # -- for the relay

    async def write(self, data: bytes) -> None:
        """Write to the relay's standard input. Each write is a round trip, so waiting pieces are joined.

        Raises:
            OSError: it has ended, or the cloud cannot be reached.
        """
        self._pending += data
        if self._flush.done():
            self._flush.result()
            self._flush = asyncio.create_task(self._drain())
            self._flush.add_done_callback(_retrieve_error)
        if len(self._pending) >= CHUNK_BYTES:
            await self._flush

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces of the relay's standard output, until the relay ends, or soon after the sandbox ends."""
        self._reader = asyncio.current_task()
        failure = None
        try:
            async with asyncio.timeout(None) as limit:
                with self._limit_wait(limit):
                    try:
                        async for piece in self.receive():
                            yield piece
                    except OSError as error:
                        failure = error
                self.broken.set()
                # After the end of the stream, the reason for it is asked for.
                await asyncio.wait({self._sandbox_end, self._stderr_reader}, timeout=LAST_OUTPUT_SECONDS)
        except TimeoutError:
            return
        if failure is not None:
            raise failure

    async def close(self) -> None:
        """End the sandbox. Idempotent."""
        if not self._closed:
            self._closed = True
            # At exit the cloud's client may end right after this, so all calls to it must end first.
            asks = (self._sandbox_end, self._stderr_reader, self._flush, self._reader)
            asking = [task for task in asks if task not in (None, asyncio.current_task())]
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)
            await self.end()

    @contextlib.contextmanager
    def _limit_wait(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Make `limit` expire soon after the end of the sandbox."""

        def over(_: object) -> None:
            if not self._closed:
                limit.reschedule(asyncio.get_running_loop().time() + LAST_OUTPUT_SECONDS)

        self._sandbox_end.add_done_callback(over)
        try:
            yield
        finally:
            self._sandbox_end.remove_done_callback(over)

    async def _drain(self) -> None:
        try:
            while self._pending:
                piece = bytes(self._pending[:CHUNK_BYTES])
                del self._pending[:CHUNK_BYTES]
                await self.send(piece)
        except OSError:
            self.broken.set()
            raise

    async def _watch(self) -> None:
        """Wait for the end of the sandbox, which may not end its stream."""
        while not self.why:
            self.why = await self.ending()


class SandboxKernel(RelayedKernel):
    """A provisioner whose kernels live in sandboxes. Each start makes a sandbox, which ends with the kernel."""

    packages = Packages(help="What pip installs besides ipykernel.").tag(environment=True, reaches_out=True)

    _remote: SandboxRemote | None = None

    @property
    def patience(self) -> float:
        """Seconds of silence after which the kernel ends, and then the idle sandbox."""
        return PATIENCE_SECONDS

    @abstractmethod
    async def start_sandbox(self) -> SandboxRemote:
        """Make a sandbox and run the relay in it. If this raises, no sandbox is left.

        Raises:
            ConfigError: the cloud's client is missing or not authenticated, or the cloud refuses an option.
            KernelError: the cloud cannot be reached, cannot build the image or has no capacity.
        """

    async def start_remote(self) -> SandboxRemote:
        """As `start_sandbox`, whose remote says later why the sandbox ended."""
        self._remote = await self.start_sandbox()
        return self._remote

    @property
    def sandbox_id(self) -> str | None:
        """The cloud's name of the sandbox, once there is one."""
        return None if self._remote is None else self._remote.sandbox_id

    def why(self) -> str:
        """Why the sandbox ended by itself, if it did, and why the relay could not start."""
        remote = self._remote
        return "" if remote is None else "\n".join(filter(None, (remote.why, remote.stderr.strip())))


@dataclass(frozen=True, slots=True)
class Cloud:
    """A cloud, and what helps when it gives no sandbox.

    Attributes:
        name: as users know it.
        login: how to get a key.
        status: a page that says how the cloud is.
    """

    name: str
    login: str
    status: str

    def does_not_know(self, error: BaseException) -> ConfigError:
        """There is no key, or it is not accepted."""
        return ConfigError(f"{self.name} does not know who you are ({first_line(error)}): {self.login}.")

    def refuses(self, error: BaseException) -> ConfigError:
        """An option is not valid."""
        return ConfigError(f"{self.name} refuses an option of environment_kwargs: {error}")

    def has_none_now(self, error: BaseException) -> KernelError:
        """No capacity, or a quota is used up."""
        return KernelError(
            f"{self.name} has no sandbox for you now ({first_line(error)}): try again later, ask for less cpu, memory "
            "or gpu, or look at the limits of your plan."
        )

    def gave_none(self, error: BaseException) -> KernelError:
        """Anything else: most often the network."""
        return KernelError(
            f"{self.name} did not give a sandbox ({first_line(error)}). Is the network there? "
            f"{self.status} tells how {self.name} is."
        )

    def cannot_install(self, packages: Sequence[str], said: str, base: str) -> KernelError:
        """`pip_command` failed. `said`: its standard error; `base`: the option with what the sandbox is made from."""
        wanted = shlex.join([*KERNEL_PACKAGES, *packages])
        return KernelError(
            f"pip could not install {wanted} in the {self.name} Sandbox. It says:\n{said[-MAX_PIP_CHARACTERS:]}\n"
            f"Look at `{base}` and `packages` of environment_kwargs: it must have Python with pip."
        )


async def finish_or_undo(creation: Coroutine[Any, Any, T], undo: Callable[[T], Awaitable[None]]) -> T:
    """Await a creation. After a cancellation it may still happen, and is then undone."""
    creating = asyncio.ensure_future(creation)
    try:
        return await asyncio.shield(creating)
    except asyncio.CancelledError:
        ending = asyncio.ensure_future(_undo_when_there(creating, undo))
        _endings.add(ending)
        ending.add_done_callback(_endings.discard)
        raise


async def _undo_when_there(creating: asyncio.Future[T], undo: Callable[[T], Awaitable[None]]) -> None:
    await asyncio.wait({creating})
    if not creating.cancelled() and creating.exception() is None:
        await undo(creating.result())


def relay_command(*options: str) -> str:
    """A command for a POSIX shell that runs `remote_end.py` in the kernel's own directory."""
    return shlex.join(["python3", "-u", "-c", source("relay/remote_end.py"), "--own-directory", *options])


def pip_command(packages: Sequence[str]) -> str:
    """A command for a POSIX shell that installs ipykernel and the packages in a running sandbox."""
    wanted = shlex.join([*KERNEL_PACKAGES, *packages])
    return f"PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --disable-pip-version-check {wanted}"


def sandbox_name(name: str) -> str:
    """A name for one sandbox. Clouds want each to be unique."""
    return f"{name}-{secrets.token_hex(6)}"


def first_line(error: BaseException) -> str:
    """The first line of an error, for the middle of a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _retrieve_error(flush: asyncio.Future[Any]) -> None:
    """Retrieve the error, which the next `write` raises."""
    if not flush.cancelled():
        flush.exception()
