"""The relay's process in a Modal Sandbox: its streams over `Sandbox.exec`, and why it ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from rlm_kernel.provisioners.modal.sandbox import end_sandbox
from rlm_kernel.provisioners.relay import sandboxed
from rlm_kernel.provisioners.relay.host_end import source

if TYPE_CHECKING:
    import modal
    from modal.container_process import ContainerProcess


class ModalRemote(sandboxed.SandboxRemote):
    """A `Remote` of the relay. Made by `start`, in the engine's loop."""

    def __init__(self, sandbox: modal.Sandbox, process: ContainerProcess[bytes], life: int) -> None:
        self._sandbox = sandbox
        self._process = process
        self._life = life
        super().__init__(sandbox.object_id)

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

    async def send(self, data: bytes) -> None:
        """Write to the relay's standard input.

        Raises:
            OSError: it has ended, or Modal cannot be reached.
        """
        from modal.exception import Error

        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain.aio()
        except (Error, ValueError) as error:
            raise OSError(f"the sandbox cannot be written to: {error}") from error

    async def receive(self) -> AsyncIterator[bytes]:
        """The pieces of the relay's standard output."""
        from modal.exception import Error

        try:
            async for piece in self._process.stdout:
                yield piece
        except Error as error:
            raise OSError(f"the sandbox cannot be read: {error}") from error

    async def read_stderr(self) -> None:
        """Collect the relay's standard error."""
        from modal.exception import Error

        with contextlib.suppress(Error):
            async for piece in self._process.stderr:
                self.add_stderr(piece.decode("utf-8", "replace"))

    async def end(self) -> None:
        """Terminate the sandbox."""
        await end_sandbox(self._sandbox)

    async def ending(self) -> str:
        """How the sandbox ended; empty when Modal cannot be reached. If that lasts, the streams fail."""
        from modal.exception import Error, SandboxTerminatedError, SandboxTimeoutError

        try:
            await self._sandbox.wait.aio()
        except SandboxTimeoutError:
            return (
                f"The Modal Sandbox reached its timeout of {self._life} s: give it more with "
                "environment_kwargs={'timeout': SECONDS} (at most 86400)."
            )
        except SandboxTerminatedError:
            return "The Modal Sandbox was terminated from elsewhere, or by Modal."
        except Error:
            await asyncio.sleep(sandboxed.ASK_AGAIN_SECONDS)
            return ""
        return "The Modal Sandbox ended by itself."
