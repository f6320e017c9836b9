"""A Prime Sandbox for a kernel, made with Prime's own client, and the streams of the relay in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from rlm_kernel import terminal
from rlm_kernel.errors import ConfigError, KernelError, check_extra
from rlm_kernel.provisioners.relay import sandboxed

if TYPE_CHECKING:
    from prime_sandboxes import AsyncSandboxClient, AsyncSandboxProcess

PRIME = sandboxed.Cloud("Prime", "run `prime login`, or set PRIME_API_KEY", "https://status.primeintellect.ai")
IDLE_MINUTES = 5
INSTALL_SECONDS = 900
MAX_WAITS = 300
"""Of `wait_for_creation`, about ten minutes: the image may have to be pulled."""
MAX_UNREAD_BYTES = 256_000_000
NETWORK_ASKS = 100
NETWORK_ASK_SECONDS = 0.1
_REFUSED = ("HTTP 400", "HTTP 404", "HTTP 422")
_NONE_NOW = ("HTTP 403", "HTTP 409", "HTTP 429")


class PrimeRemote(sandboxed.SandboxRemote):
    """A `Remote` of the relay. Made by `start`, in the engine's loop."""

    def __init__(self, client: AsyncSandboxClient, sandbox: str, process: AsyncSandboxProcess) -> None:
        # The client repeats a broken stream from now on, not from where it broke. A kernel that died is run again, and
        # a stream with a gap is not.
        process._reconnect = None  # noqa: SLF001
        process.stdout.feed = self._feed  # type: ignore[method-assign]
        self._unread = 0
        self._client = client
        self._sandbox = sandbox
        self._process = process
        super().__init__(sandbox)

    @classmethod
    async def start(cls, client: AsyncSandboxClient, sandbox: str, env: Mapping[str, str]) -> Self:
        """Run `remote_end.py` in the sandbox."""
        command = f"exec {sandboxed.relay_command()}"
        return cls(client, sandbox, await client.open_process(sandbox, command, env=dict(env)))

    async def send(self, data: bytes) -> None:
        """Write to the relay's standard input.

        Raises:
            OSError: it has ended, or Prime cannot be reached.
        """
        from prime_sandboxes import APIError

        try:
            await self._process.write_stdin(data)
        except APIError as error:
            raise OSError(f"the sandbox cannot be written to: {error}") from error

    async def receive(self) -> AsyncIterator[bytes]:
        """The pieces of the relay's standard output."""
        from prime_sandboxes import APIError

        try:
            async for piece in self._process.stdout:
                self._unread -= len(piece)
                yield piece
        except APIError as error:
            raise OSError(f"the sandbox cannot be read: {error}") from error

    def _feed(self, data: bytes) -> None:
        """Take a piece from Prime's client, which would read on while we wait, without a bound."""
        self._unread += len(data)
        if self._unread > MAX_UNREAD_BYTES:
            self.why = f"The kernel wrote {self._unread:,} bytes faster than they were taken: print less at a time."
            raise OSError(self.why)
        type(self._process.stdout).feed(self._process.stdout, data)

    async def read_stderr(self) -> None:
        """Collect the relay's standard error."""
        from prime_sandboxes import APIError

        with contextlib.suppress(APIError, OSError):
            async for piece in self._process.stderr:
                self.add_stderr(piece.decode("utf-8", "replace"))

    async def ending(self) -> str:
        """How the sandbox ended; empty while it runs, and when Prime cannot be reached."""
        from prime_sandboxes import APIError

        await self.broken.wait()
        with contextlib.suppress(APIError):
            sandbox = await self._client.get(self._sandbox)
            if sandbox.status == "TIMEOUT":
                return (
                    f"The Prime Sandbox reached its timeout of {sandbox.timeout_minutes} minutes: give it more with "
                    "environment_kwargs={'timeout_minutes': MINUTES} (at most 1440)."
                )
            if sandbox.status in {"ERROR", "TERMINATED"}:
                said = sandbox.error_message or sandbox.error_type or sandbox.termination_reason
                return f"The Prime Sandbox was ended by Prime, or from elsewhere{f': {said}' if said else '.'}"
        await asyncio.sleep(sandboxed.ASK_AGAIN_SECONDS)
        return ""

    async def end(self) -> None:
        """Delete the sandbox."""
        await end_sandbox(self._client, self._sandbox)


async def start_sandbox(
    packages: Sequence[str], env: Mapping[str, str], *, network: bool, **options: Any
) -> PrimeRemote:
    """Make a sandbox, install what is missing in its image, close its network, and run the relay.

    Args:
        packages: installed by pip, in addition to ipykernel.
        env: the environment variables of the kernel.
        network: whether the kernel has a network.
        options: of `prime_sandboxes.CreateSandboxRequest`.

    Raises:
        ConfigError: the client is missing or not authenticated, or Prime refuses an option.
        KernelError: Prime cannot be reached, cannot make the sandbox or has no capacity.
    """
    require_prime()
    await asyncio.to_thread(import_module, "prime_sandboxes")  # half a second, in which other runs go on
    from prime_sandboxes import CreateSandboxRequest

    client = _client()
    with translate_errors(options["docker_image"]):
        try:
            order = CreateSandboxRequest(**options)
            made = await sandboxed.finish_or_undo(client.create(order), lambda made: end_sandbox(client, made.id))
        except Exception:
            await client.aclose()
            raise
        try:
            await client.wait_for_creation(made.id, max_attempts=MAX_WAITS)
            await _install(client, made.id, packages)
            if not network:
                await _close_network(client, made.id)
            return await PrimeRemote.start(client, made.id, env)
        except BaseException:
            await asyncio.shield(end_sandbox(client, made.id))
            raise


def _client() -> AsyncSandboxClient:
    """Prime's client, with a key."""
    from prime_sandboxes import AsyncSandboxClient

    try:
        client = AsyncSandboxClient()
    except ValueError as error:  # PRIME_CONTEXT names no profile
        raise ConfigError(f"Prime's client does not start: {error}") from error
    if not client.client.api_key:
        raise PRIME.does_not_know(ValueError("PRIME_API_KEY is not set"))
    return client


async def end_sandbox(client: AsyncSandboxClient, sandbox: str) -> None:
    """Delete it, if it can be reached, and close the client."""
    from prime_sandboxes import APIError

    with contextlib.suppress(APIError, OSError):
        await client.delete(sandbox)
    await client.aclose()


def require_prime() -> None:
    """Check that Prime's client is installed.

    Raises:
        ConfigError: it is not.
    """
    check_extra("environment='prime'", "prime_sandboxes", "prime")


@contextlib.contextmanager
def translate_errors(image: str) -> Iterator[None]:
    """Turn the errors of Prime's client into ours, which say what helps."""
    import prime_sandboxes as prime

    try:
        yield
    except prime.UnauthorizedError as error:
        raise PRIME.does_not_know(error) from error
    except prime.PaymentRequiredError as error:
        raise KernelError(
            "Prime wants payment: add credit at https://app.primeintellect.ai/dashboard/billing."
        ) from error
    except prime.SandboxImagePullError as error:
        raise ConfigError(f"Prime cannot pull {image!r}: give another docker_image. {error}") from error
    except ValueError as error:  # pydantic's too
        raise PRIME.refuses(error) from error
    except (prime.APIError, prime.SandboxNotRunningError, OSError, RuntimeError) as error:
        if str(error).startswith(_REFUSED):
            raise PRIME.refuses(error) from error
        raise (PRIME.has_none_now if str(error).startswith(_NONE_NOW) else PRIME.gave_none)(error) from error


async def _install(client: AsyncSandboxClient, sandbox: str, packages: Sequence[str]) -> None:
    """Install ipykernel, unless it is in the image, and the packages."""
    run = partial(client.execute_command, sandbox, timeout=INSTALL_SECONDS)
    if not packages and (await run(sandboxed.HAS_KERNEL)).exit_code == 0:
        return
    terminal.print_note("Prime installs packages in the sandbox: an image that has them starts sooner.")
    done = await run(sandboxed.pip_command(packages))
    if done.exit_code:
        raise PRIME.cannot_install(packages, done.stderr, "docker_image")


async def _close_network(client: AsyncSandboxClient, sandbox: str) -> None:
    """Refuse all connections, and wait until that holds."""
    policy = await client.set_network(sandbox, deny=["*"])
    for _ in range(NETWORK_ASKS):
        if policy.applied:
            return
        await asyncio.sleep(NETWORK_ASK_SECONDS)
        policy = await client.get_network(sandbox)
    raise KernelError("Prime did not close the network of the sandbox: try again, or give network_access=True.")
