"""A Daytona Sandbox for a kernel, made with Daytona's own client, and the streams of the relay in it.

The relay is a command of a session: its input is sent by requests, its output is a log that is followed. Both carry
text only. A terminal would be faster, but Daytona closes one whose reader is slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rlm_kernel import terminal
from rlm_kernel.errors import KernelError, check_extra
from rlm_kernel.provisioners.relay import sandboxed

if TYPE_CHECKING:
    from daytona import AsyncDaytona, AsyncSandbox, Image

DAYTONA = sandboxed.Cloud(
    "Daytona", "set DAYTONA_API_KEY, a key of https://app.daytona.io/dashboard/keys", "https://status.daytona.io"
)
USUAL_URL = "https://app.daytona.io/api"
CREATE_SECONDS = 900
"""With the build of an image."""
LOG_LINES = 20
MINUTE_SECONDS = 60
MAX_WAITING_PIECES = 16
SESSION = "rlm"
_OVER = frozenset({"stopped", "stopping", "destroyed", "destroying", "archived", "error"})


class DaytonaRemote(sandboxed.SandboxRemote):
    """A `Remote` of the relay. Made by `start`, in the engine's loop."""

    def __init__(self, client: AsyncDaytona, sandbox: AsyncSandbox, command: str, minutes: int) -> None:
        self._client = client
        self._sandbox = sandbox
        self._command = command
        self._minutes = minutes
        self._started = asyncio.get_running_loop().time()
        self._begun_line = b""
        super().__init__(sandbox.id)

    @classmethod
    async def start(cls, client: AsyncDaytona, sandbox: AsyncSandbox, minutes: int) -> Self:
        """Run `remote_end.py` in the sandbox. `minutes`: of its life, for the message when they are over."""
        from daytona import SessionExecuteRequest

        await sandbox.process.create_session(SESSION)
        command = SessionExecuteRequest(
            command=sandboxed.relay_command("--text"), run_async=True, suppress_input_echo=True
        )
        started = await sandbox.process.execute_session_command(SESSION, command)
        return cls(client, sandbox, started.cmd_id, minutes)

    async def send(self, data: bytes) -> None:
        """Write to the relay's standard input, whole lines only: Daytona ends each request with a newline.

        Raises:
            OSError: it has ended, or Daytona cannot be reached.
        """
        from daytona import DaytonaError

        lines, end, self._begun_line = (self._begun_line + data).rpartition(b"\n")
        text = (lines + end).decode("ascii")
        try:
            if text:
                await self._sandbox.process.send_session_command_input(SESSION, self._command, text)
        except DaytonaError as error:
            raise OSError(f"the sandbox cannot be written to: {error}") from error

    async def receive(self) -> AsyncIterator[bytes]:
        """The pieces of the relay's standard output."""
        from daytona import DaytonaError

        pieces: asyncio.Queue[str | None] = asyncio.Queue(MAX_WAITING_PIECES)
        following = asyncio.create_task(self._follow(pieces))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece.encode()
            await following
        except DaytonaError as error:
            raise OSError(f"the sandbox cannot be read: {error}") from error
        finally:
            following.cancel()

    async def _follow(self, pieces: asyncio.Queue[str | None]) -> None:
        """Put what the relay writes into the queue, and None at its end."""
        try:
            follow = self._sandbox.process.get_session_command_logs_async
            await follow(SESSION, self._command, pieces.put, self.add_stderr)
        finally:
            await pieces.put(None)

    async def read_stderr(self) -> None:
        """Wait for the end: `receive` collects it."""
        await self.broken.wait()

    async def ending(self) -> str:
        """How the sandbox ended; empty while it runs, and when Daytona cannot be reached."""
        from daytona import DaytonaError, DaytonaNotFoundError

        await self.broken.wait()
        try:
            await self._sandbox.refresh_data()
            over = self._sandbox.state in _OVER
        except DaytonaNotFoundError:
            over = True
        except DaytonaError:
            over = False
        if not over:
            await asyncio.sleep(sandboxed.ASK_AGAIN_SECONDS)
            return ""
        if asyncio.get_running_loop().time() - self._started >= self._minutes * MINUTE_SECONDS:
            return (
                f"The Daytona Sandbox reached its timeout of {self._minutes} minutes: give it more with "
                "environment_kwargs={'timeout': SECONDS}."
            )
        reason = self._sandbox.error_reason
        return f"The Daytona Sandbox was ended by Daytona, or from elsewhere{f': {reason}' if reason else '.'}"

    async def end(self) -> None:
        """Delete the sandbox."""
        await end_sandbox(self._client, self._sandbox)


async def start_sandbox(
    config: Mapping[str, Any], image: str | None, packages: Sequence[str], *, name: str, life: int, **options: Any
) -> DaytonaRemote:
    """Build the image, unless Daytona has it, start a sandbox, and run the relay in it.

    Args:
        config: of `daytona.DaytonaConfig`.
        image: a name in a registry, with Python and pip in it; None: Debian with the Python version of this process.
        packages: installed by pip, in addition to ipykernel.
        name: of the sandbox; no other has it.
        life: seconds after which Daytona ends it.
        options: of `daytona.CreateSandboxFromImageParams`.

    Raises:
        ConfigError: the client is missing or not authenticated, or Daytona refuses an option.
        KernelError: Daytona cannot be reached, cannot build the image or has no capacity.
    """
    from daytona import AsyncDaytona, CreateSandboxFromImageParams, DaytonaConfig

    log: deque[str] = deque(maxlen=LOG_LINES)
    with translate_errors(log):
        minutes = math.ceil(life / 60)  # Daytona counts in whole minutes
        built = kernel_image(image, packages)
        order = CreateSandboxFromImageParams(image=built, name=name, ttl_minutes=minutes, **options)
        url = os.environ.get("DAYTONA_API_URL") or USUAL_URL  # without one, the client warns of its own option
        client = AsyncDaytona(DaytonaConfig(**config, api_url=url))
        creation = client.create(order, timeout=CREATE_SECONDS, on_snapshot_create_logs=_report(log))
        try:
            sandbox = await sandboxed.finish_or_undo(creation, lambda made: end_sandbox(client, made))
        except Exception:  # it may be there nevertheless, e.g. without an image
            await asyncio.shield(_end_named(client, name))
            raise
        try:
            return await DaytonaRemote.start(client, sandbox, minutes)
        except BaseException:
            await asyncio.shield(end_sandbox(client, sandbox))
            raise


async def end_sandbox(client: AsyncDaytona, sandbox: AsyncSandbox) -> None:
    """Delete it, if it can be reached, and close the client."""
    from daytona import DaytonaError

    with contextlib.suppress(DaytonaError, OSError):
        await sandbox.delete()
    await client.close()  # type: ignore[no-untyped-call]


async def _end_named(client: AsyncDaytona, name: str) -> None:
    """Delete the sandbox of this name, if there is one, and close the client."""
    from daytona import DaytonaError

    with contextlib.suppress(DaytonaError, OSError):
        await (await client.get(name)).delete()
    await client.close()  # type: ignore[no-untyped-call]


def require_daytona() -> None:
    """Check that Daytona's client is installed.

    Raises:
        ConfigError: it is not.
    """
    check_extra("environment='daytona'", "daytona", "daytona")


def kernel_image(name: str | None, packages: Sequence[str]) -> Image:
    """The recipe of an image for a kernel, which Daytona builds once."""
    from daytona import Image

    base = Image.base(name or f"python:{sys.version_info.major}.{sys.version_info.minor}-slim")
    return base.pip_install(*sandboxed.KERNEL_PACKAGES, *packages).entrypoint(["sleep", "infinity"])


@contextlib.contextmanager
def translate_errors(log: Sequence[str]) -> Iterator[None]:
    """Turn the errors of Daytona's client into ours, which say what helps. `log`: the end of that of the build."""
    import daytona

    try:
        yield
    except daytona.DaytonaAuthenticationError as error:
        raise DAYTONA.does_not_know(error) from error
    except (daytona.DaytonaForbiddenError, daytona.DaytonaRateLimitError, daytona.DaytonaQueueTimeoutError) as error:
        raise DAYTONA.has_none_now(error) from error
    except (daytona.DaytonaValidationError, daytona.DaytonaUnprocessableEntityError, ValueError) as error:
        raise DAYTONA.refuses(error) from error
    except daytona.DaytonaError as error:
        if "build_failed" not in str(error).lower():
            raise DAYTONA.gave_none(error) from error
        raise KernelError(
            "Daytona could not build the image. Its log ends:\n" + "\n".join([*log, str(error)]) + "\n"
            "Look at `image` and `packages` of environment_kwargs: the image must have Python with pip."
        ) from error
    except OSError as error:
        raise DAYTONA.gave_none(error) from error


def _report(log: deque[str]) -> Any:
    """Keep the lines of a build, and say once that one takes place."""

    def take(line: str) -> None:
        if not log:
            terminal.print_note("Daytona builds the image: this takes a minute or so, once.")
        log.append(line)

    return take
