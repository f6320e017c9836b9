"""An E2B Sandbox for a kernel, made with E2B's own client, and the streams of the relay in it.

The client decodes the output of a command as UTF-8, so the relay's streams are lines of text.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from rlm_kernel import terminal
from rlm_kernel.errors import check_extra
from rlm_kernel.provisioners.relay import sandboxed

if TYPE_CHECKING:
    from e2b import AsyncCommandHandle, AsyncSandbox

E2B = sandboxed.Cloud("E2B", "set E2B_API_KEY, a key of https://e2b.dev/dashboard?tab=keys", "https://status.e2b.dev")
LEASE_SECONDS = 120
"""E2B does not end what is idle. So a sandbox is given this much at a time, and more while this process lives."""
RENEW_SECONDS = 30.0
CLOCK_SECONDS = 5.0
"""By so much E2B's clock may be ahead of ours."""
INSTALL_SECONDS = 900
MAX_WAITING_PIECES = 16
STDERR_PIECES = 100
_REFUSED = frozenset({400, 404, 409, 422})


class E2BRemote(sandboxed.SandboxRemote):
    """A `Remote` of the relay. Made by `start`, in the engine's loop."""

    def __init__(
        self, sandbox: AsyncSandbox, command: AsyncCommandHandle, output: asyncio.Queue[Any], life: int, over: float
    ) -> None:
        self._sandbox = sandbox
        self._command = command
        self._output = output
        self._life = life
        self._over = over
        # The client keeps all output. Only versions that do not install next to Prime's have an option against it.
        command._stdout_chunks = deque(maxlen=0)  # type: ignore[assignment]  # noqa: SLF001
        command._stderr_chunks = deque(maxlen=STDERR_PIECES)  # type: ignore[assignment]  # noqa: SLF001
        super().__init__(sandbox.sandbox_id)

    @classmethod
    async def start(cls, sandbox: AsyncSandbox, env: Mapping[str, str], life: int, over: float) -> Self:
        """Run `remote_end.py` in the sandbox. `life`: of the sandbox, in seconds, until `over` in the loop's time."""
        output: asyncio.Queue[str | Exception | None] = asyncio.Queue(MAX_WAITING_PIECES)
        command = await sandbox.commands.run(
            sandboxed.relay_command("--text"),
            background=True,
            envs=dict(env),
            stdin=True,
            timeout=0,  # none
            on_stdout=output.put,
        )
        return cls(sandbox, command, output, life, over)

    async def send(self, data: bytes) -> None:
        """Write to the relay's standard input.

        Raises:
            OSError: it has ended, or E2B cannot be reached.
        """
        try:
            await self._sandbox.commands.send_stdin(self._command.pid, data)
        except client_errors() as error:
            raise OSError(f"the sandbox cannot be written to: {error}") from error

    async def receive(self) -> AsyncIterator[bytes]:
        """The pieces of the relay's standard output."""
        following = asyncio.create_task(self._follow())
        try:
            while isinstance(piece := await self._output.get(), str):
                yield piece.encode()
        finally:
            following.cancel()
        if piece is not None:
            raise OSError(f"the sandbox cannot be read: {piece}") from piece

    async def _follow(self) -> None:
        """Put how the relay ended behind its output: None, or the error that broke the stream."""
        from e2b import CommandExitException

        failure = None
        try:
            with contextlib.suppress(CommandExitException):  # its standard error says why
                await self._command.wait()
        except Exception as error:  # noqa: BLE001 (a stream without an end raises a plain Exception)
            failure = error
        await self._output.put(failure)

    async def read_stderr(self) -> None:
        """Wait for the end: the client collects it."""
        await self.broken.wait()
        self.add_stderr(self._command.stderr)

    async def ending(self) -> str:
        """How the sandbox ended. Empty while it runs, which also extends its life, and when E2B cannot be reached."""
        from e2b import SandboxNotFoundException

        with contextlib.suppress(*client_errors()):
            try:
                if not await self._breaks_within(RENEW_SECONDS):
                    await self._renew()
                    return ""
                await self._sandbox.get_info()
            except SandboxNotFoundException:
                return self._why_gone()
        await asyncio.sleep(sandboxed.ASK_AGAIN_SECONDS)
        return ""

    async def _breaks_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.broken.wait()
        return self.broken.is_set()

    async def _renew(self) -> None:
        """Give the sandbox time until the next renewal, but not more than its life."""
        left = math.ceil(self._over - asyncio.get_running_loop().time())
        if left > 0:
            await self._sandbox.set_timeout(min(LEASE_SECONDS, left))

    def _why_gone(self) -> str:
        if asyncio.get_running_loop().time() + CLOCK_SECONDS >= self._over:
            return (
                f"The E2B Sandbox reached its timeout of {self._life} seconds: give it more with "
                "environment_kwargs={'timeout': SECONDS}."
            )
        return "The E2B Sandbox was ended by E2B, or from elsewhere: your plan may allow a shorter life than `timeout`."

    async def end(self) -> None:
        """Kill the sandbox."""
        await self._command.disconnect()
        await end_sandbox(self._sandbox)


async def start_sandbox(
    packages: Sequence[str], env: Mapping[str, str], *, api_key: str | None, template: str, life: int, network: bool
) -> E2BRemote:
    """Make a sandbox, install what is missing in its template, and run the relay.

    Args:
        packages: installed by pip, in addition to ipykernel.
        env: the environment variables of the kernel.
        api_key: None: that of `E2B_API_KEY`.
        template: its name at E2B.
        life: seconds after which the sandbox ends.
        network: whether the kernel has a network.

    Raises:
        ConfigError: the client is missing or not authenticated, or E2B refuses an option.
        KernelError: E2B cannot be reached, cannot make the sandbox or has no capacity.
    """
    require_e2b()
    await asyncio.to_thread(import_module, "e2b")  # half a second, in which other runs go on
    from e2b import AsyncSandbox

    over = asyncio.get_running_loop().time() + life
    with translate_errors():
        creation = AsyncSandbox.create(
            template,
            timeout=min(life, LEASE_SECONDS),
            allow_internet_access=network,
            lifecycle={"on_timeout": "kill"},
            api_key=api_key,
        )
        sandbox = await sandboxed.finish_or_undo(creation, end_sandbox)
        try:
            await _install(sandbox, packages, network=network)
            return await E2BRemote.start(sandbox, env, life, over)
        except BaseException:
            await asyncio.shield(end_sandbox(sandbox))
            raise


async def end_sandbox(sandbox: AsyncSandbox) -> None:
    """Kill it, if it can be reached; if not, it ends soon, because nobody extends its life."""
    with contextlib.suppress(*client_errors()):
        await sandbox.kill()


def require_e2b() -> None:
    """Check that E2B's client is installed.

    Raises:
        ConfigError: it is not.
    """
    check_extra("environment='e2b'", "e2b", "e2b")


def client_errors() -> tuple[type[Exception], ...]:
    """The errors of E2B's client, which have no common class. The last two: an answer that is not E2B's."""
    import e2b
    import httpx
    from connectrpc.errors import ConnectError

    own = e2b.SandboxException, e2b.AuthenticationException, e2b.ServiceBusyException
    return (*own, httpx.HTTPError, ConnectError, OSError, ValueError, LookupError)


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Turn the errors of E2B's client into ours, which say what helps."""
    import e2b

    try:
        yield
    except e2b.AuthenticationException as error:
        raise E2B.does_not_know(error) from error
    except (e2b.RateLimitException, e2b.ServiceBusyException) as error:
        raise E2B.has_none_now(error) from error
    except e2b.SandboxException as error:
        if error.status_code in _REFUSED:
            raise E2B.refuses(error) from error
        raise (E2B.has_none_now if error.status_code == HTTPStatus.FORBIDDEN else E2B.gave_none)(error) from error
    except client_errors() as error:
        raise E2B.gave_none(error) from error


async def _install(sandbox: AsyncSandbox, packages: Sequence[str], *, network: bool) -> None:
    """Install ipykernel, unless it is in the template, and the packages. A closed network is open meanwhile."""
    from e2b import CommandExitException

    run = partial(sandbox.commands.run, timeout=INSTALL_SECONDS)
    with contextlib.suppress(CommandExitException):
        if not packages:
            await run(sandboxed.HAS_KERNEL)
            return
    terminal.print_note("E2B installs packages in the sandbox: a template that has them starts sooner.")
    if not network:
        await sandbox.update_network({"allow_internet_access": True})
    await sandbox.set_timeout(INSTALL_SECONDS)
    try:
        await run(sandboxed.pip_command(packages), user="root")
    except CommandExitException as error:
        raise E2B.cannot_install(packages, error.stderr, "template") from error
    if not network:
        await sandbox.update_network({"allow_internet_access": False})
