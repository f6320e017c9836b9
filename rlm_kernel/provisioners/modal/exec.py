"""The relay's process in a Modal Sandbox: its two streams over `Sandbox.exec`, and why it ended."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rlm_kernel._async import engine_loop
from rlm_kernel.provisioners.modal.sandbox import end_sandbox
from rlm_kernel.provisioners.relay.host_end import CHUNK_BYTES, source

if TYPE_CHECKING:
    import modal
    from modal.container_process import ContainerProcess

LAST_WORDS_SECONDS = 2.0
"""How long the stream of a sandbox that has ended may still bring what was on its way."""
ASK_AGAIN_SECONDS = 5.0
AT_EXIT_SECONDS = 5.0
MAX_WORDS = 4_000

_live: weakref.WeakSet[ModalRemote] = weakref.WeakSet()


class ModalRemote:
    """A `Remote` of the relay. Made by `start`, in the engine's loop.

    Attributes:
        why: why the sandbox ended by itself, in plain words; empty while it runs and when nobody knows.
        words: the last of what the relay wrote to its standard error: nothing, unless it could not start.
    """

    def __init__(self, sandbox: modal.Sandbox, process: ContainerProcess[bytes], life: int) -> None:
        self.why = ""
        self.words = ""
        self._sandbox = sandbox
        self._process = process
        self._pending = bytearray()
        self._flush: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flush.set_result(None)
        self._over = asyncio.create_task(self._watch(life))
        self._complaints = asyncio.create_task(self._listen())
        self._reader: asyncio.Task[Any] | None = None
        self._closed = False
        _live.add(self)

    @classmethod
    async def start(cls, sandbox: modal.Sandbox, env: Mapping[str, str], life: int) -> ModalRemote:
        """Run `remote_end.py` in the sandbox.

        Args:
            sandbox: belongs to the remote from now on, also when this raises.
            env: the environment variables of the kernel.
            life: the sandbox's timeout in seconds, to be named when they are over.

        Raises:
            modal.exception.Error: it cannot be started.
        """
        _end_at_exit()
        try:
            command = ("python", "-u", "-c", source("relay/remote_end.py"))
            process = await sandbox.exec.aio(*command, text=False, env=dict(env))
            return cls(sandbox, process, life)
        except BaseException:
            await asyncio.shield(end_sandbox(sandbox))
            raise

    async def write(self, data: bytes) -> None:
        """Write to the relay's standard input. Each piece costs a round trip, so those that wait travel together.

        Raises:
            OSError: it has ended, or Modal cannot be reached.
        """
        self._pending += data
        if self._flush.done():
            self._flush.result()
            self._flush = asyncio.create_task(self._drain())
            self._flush.add_done_callback(_looked_at)
        if len(self._pending) >= CHUNK_BYTES:
            await self._flush

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces of the relay's standard output. Ends with the relay, and soon after the sandbox."""
        from modal.exception import Error

        self._reader = asyncio.current_task()
        try:
            async with asyncio.timeout(None) as limit:
                with self._limit_wait(limit):
                    async for piece in self._process.stdout:
                        yield piece
                # Whoever learns that the stream has ended may ask why.
                await asyncio.wait({self._over, self._complaints}, timeout=LAST_WORDS_SECONDS)
        except TimeoutError:
            return
        except Error as error:
            raise OSError(f"the sandbox cannot be read: {error}") from error

    @contextlib.contextmanager
    def _limit_wait(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Let the limit come soon after the end of the sandbox."""

        def over(_: object) -> None:
            limit.reschedule(asyncio.get_running_loop().time() + LAST_WORDS_SECONDS)

        self._over.add_done_callback(over)
        try:
            yield
        finally:
            self._over.remove_done_callback(over)

    async def close(self) -> None:
        """Terminate the sandbox. Idempotent."""
        if not self._closed:
            self._closed = True
            _live.discard(self)
            # At exit Modal's client is gone right after this: nobody may ask it for more.
            asks = (self._over, self._complaints, self._flush, self._reader)
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

    async def _listen(self) -> None:
        from modal.exception import Error

        with contextlib.suppress(Error):
            async for piece in self._process.stderr:
                self.words = (self.words + piece.decode("utf-8", "replace"))[-MAX_WORDS:]

    async def _watch(self, life: int) -> None:
        """Wait for the end of the sandbox: a stream alone may not notice it."""
        while not self.why:
            self.why = await self._ending(life)

    async def _ending(self, life: int) -> str:
        """How the sandbox ended; empty when Modal cannot be asked now: the streams tell whether that lasts."""
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


def _looked_at(flush: asyncio.Future[Any]) -> None:
    """The error is raised by the next `write`, if there is one."""
    if not flush.cancelled():
        flush.exception()


@functools.cache
def _end_at_exit() -> None:
    """A kernel that nobody closed ends with the process, as a local one does. Here Modal must be told.

    What is registered later is called earlier: while Modal's client, which is there by now, still works.
    """
    atexit.register(_end_all)


def _end_all() -> None:
    if _live:
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_close(list(_live)), engine_loop()).result(AT_EXIT_SECONDS)


async def _close(remotes: list[ModalRemote]) -> None:
    await asyncio.gather(*(remote.close() for remote in remotes))
