"""The relay's process in a Modal Sandbox: its streams over `Sandbox.exec`, and why it ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rlm_kernel.provisioners.modal.sandbox import end_sandbox
from rlm_kernel.provisioners.relay.at_exit import end_at_exit
from rlm_kernel.provisioners.relay.host_end import CHUNK_BYTES, source

if TYPE_CHECKING:
    import modal
    from modal.container_process import ContainerProcess

LAST_OUTPUT_SECONDS = 2.0
"""How long the stream of an ended sandbox is still read."""
ASK_AGAIN_SECONDS = 5.0
MAX_STDERR_CHARACTERS = 4_000


class ModalRemote:
    """A `Remote` of the relay. Made by `start`, in the engine's loop.

    Attributes:
        why: why the sandbox ended by itself; empty while it runs, and when it is not known.
        stderr: the end of the relay's standard error; empty unless it could not start.
    """

    def __init__(self, sandbox: modal.Sandbox, process: ContainerProcess[bytes], life: int) -> None:
        self.why = ""
        self.stderr = ""
        self._sandbox = sandbox
        self._process = process
        self._pending = bytearray()
        self._flush: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flush.set_result(None)
        self._sandbox_end = asyncio.create_task(self._watch(life))
        self._stderr_reader = asyncio.create_task(self._read_stderr())
        self._reader: asyncio.Task[Any] | None = None
        self._closed = False
        end_at_exit(self)

    @classmethod
    async def start(cls, sandbox: modal.Sandbox, env: Mapping[str, str], life: int) -> ModalRemote:
        """Run `remote_end.py` in the sandbox.

        Args:
            sandbox: the remote ends it, also when this raises.
            env: the environment variables of the kernel.
            life: the sandbox's timeout in seconds, for the message when it is over.

        Raises:
            modal.exception.Error: it cannot be started.
        """
        try:
            command = ("python", "-u", "-c", source("relay/remote_end.py"))
            process = await sandbox.exec.aio(*command, text=False, env=dict(env))
            return cls(sandbox, process, life)
        except BaseException:
            await asyncio.shield(end_sandbox(sandbox))
            raise

    async def write(self, data: bytes) -> None:
        """Write to the relay's standard input. Each write is a round trip, so waiting pieces are joined.

        Raises:
            OSError: it has ended, or Modal cannot be reached.
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
        from modal.exception import Error

        self._reader = asyncio.current_task()
        try:
            async with asyncio.timeout(None) as limit:
                with self._limit_wait(limit):
                    async for piece in self._process.stdout:
                        yield piece
                # After the end of the stream, the reason for it is asked for.
                await asyncio.wait({self._sandbox_end, self._stderr_reader}, timeout=LAST_OUTPUT_SECONDS)
        except TimeoutError:
            return
        except Error as error:
            raise OSError(f"the sandbox cannot be read: {error}") from error

    @contextlib.contextmanager
    def _limit_wait(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Make `limit` expire soon after the end of the sandbox."""

        def over(_: object) -> None:
            limit.reschedule(asyncio.get_running_loop().time() + LAST_OUTPUT_SECONDS)

        self._sandbox_end.add_done_callback(over)
        try:
            yield
        finally:
            self._sandbox_end.remove_done_callback(over)

    async def close(self) -> None:
        """Terminate the sandbox. Idempotent."""
        if not self._closed:
            self._closed = True
            # At exit Modal's client ends right after this, so all calls to it must end first.
            asks = (self._sandbox_end, self._stderr_reader, self._flush, self._reader)
            asking = [task for task in asks if task not in (None, asyncio.current_task())]
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)
            await end_sandbox(self._sandbox)

    async def _drain(self) -> None:
        from modal.exception import Error

        try:
            while self._pending:
                piece = bytes(self._pending[:CHUNK_BYTES])
                del self._pending[:CHUNK_BYTES]
                self._process.stdin.write(piece)
                await self._process.stdin.drain.aio()
        except (Error, ValueError) as error:
            raise OSError(f"the sandbox cannot be written to: {error}") from error

    async def _read_stderr(self) -> None:
        from modal.exception import Error

        with contextlib.suppress(Error):
            async for piece in self._process.stderr:
                self.stderr = (self.stderr + piece.decode("utf-8", "replace"))[-MAX_STDERR_CHARACTERS:]

    async def _watch(self, life: int) -> None:
        """Wait for the end of the sandbox, which may not end its stream."""
        while not self.why:
            self.why = await self._ending(life)

    async def _ending(self, life: int) -> str:
        """How the sandbox ended; empty when Modal cannot be reached. If that lasts, the streams fail."""
        from modal.exception import Error, SandboxTerminatedError, SandboxTimeoutError

        try:
            await self._sandbox.wait.aio()
        except SandboxTimeoutError:
            return (
                f"The Modal Sandbox reached its timeout of {life} s: give it more with "
                "environment_kwargs={'timeout': SECONDS} (at most 86400)."
            )
        except SandboxTerminatedError:
            return "The Modal Sandbox was terminated from elsewhere, or by Modal."
        except Error:
            await asyncio.sleep(ASK_AGAIN_SECONDS)
            return ""
        return "The Modal Sandbox ended by itself."


def _retrieve_error(flush: asyncio.Future[Any]) -> None:
    """Retrieve the error, which the next `write` raises."""
    if not flush.cancelled():
        flush.exception()
