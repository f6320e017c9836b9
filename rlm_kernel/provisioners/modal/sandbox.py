"""Create a Modal Sandbox for a kernel with Modal's own client; its errors as ours, with the next step.

The sandbox gets no file, variable or token of this machine. It ends by `terminate`, at its `timeout`, and after
`IDLE_SECONDS` without a running command, so a forgotten sandbox costs little.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rlm_kernel import terminal
from rlm_kernel.errors import ConfigError, KernelError, check_extra
from rlm_kernel.provisioners.relay.sandboxed import KERNEL_PACKAGES, Cloud, finish_or_undo, first_line

if TYPE_CHECKING:
    import modal

IDLE_SECONDS = 60
MAX_LIFETIME = 24 * 3600
"""Seconds: Modal's own limit of a sandbox's life."""
LOG_LINES = 20
CONNECT_SECONDS = 20.0
"""Modal's client tries for a minute. Without a network the error should come sooner."""
QUIET_SECONDS = 2.0
"""A build that takes longer is reported: it takes a minute, once."""

MODAL = Cloud(
    "Modal", "run `modal token new`, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET", "https://status.modal.com"
)


def require_modal() -> None:
    """Check that Modal's client is installed.

    Raises:
        ConfigError: it is not.
    """
    check_extra("environment='modal'", "modal", "modal")


async def create_sandbox(
    app_name: str, image: str | modal.Image | None, packages: Sequence[str], *, lifetime: int, **options: Any
) -> modal.Sandbox:
    """Build the image, unless Modal has it, and start a sandbox that waits for commands.

    Args:
        app_name: the Modal App that it belongs to; made when it does not exist.
        image: one with Python and pip in it, or its name in a registry; None: Debian with the Python version of this
            process.
        packages: installed by pip, in addition to ipykernel.
        lifetime: seconds after which Modal ends it.
        options: `cpu`, `memory`, `gpu` and `block_network` of `modal.Sandbox.create`.

    Raises:
        ConfigError: the client is missing or not authenticated, or Modal refuses an option.
        KernelError: Modal cannot be reached, cannot build the image or has no capacity.
    """
    require_modal()
    import modal

    with translate_errors(app_name):
        app = await _app(app_name)
        built = await _build(_image(image, packages), app)
        command = ("sleep", str(MAX_LIFETIME))
        idle = min(IDLE_SECONDS, lifetime)
        return await finish_or_undo(
            modal.Sandbox.create.aio(*command, app=app, image=built, timeout=lifetime, idle_timeout=idle, **options),
            end_sandbox,
        )


async def end_sandbox(sandbox: modal.Sandbox) -> None:
    """Terminate it, if it can be reached; if not, its idle timeout ends it."""
    from modal.exception import Error

    with contextlib.suppress(Error, OSError):
        await sandbox.terminate.aio()
        await sandbox.detach.aio()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def translate_errors(app_name: str) -> Iterator[None]:
    """Turn the errors of Modal's client into ours, which say what helps."""
    from modal import exception as modal_errors

    try:
        yield
    except modal_errors.AuthError as error:
        raise MODAL.does_not_know(error) from error
    except modal_errors.PermissionDeniedError as error:
        raise ConfigError(
            f"Modal does not allow the App {app_name!r} ({first_line(error)}): choose another one by "
            "environment_kwargs={'app_name': ...}, or another profile by MODAL_PROFILE."
        ) from error
    except modal_errors.NotFoundError as error:
        raise ConfigError(f"Modal does not find it: {first_line(error)}. Is MODAL_ENVIRONMENT right?") from error
    except (modal_errors.InvalidError, ValueError) as error:
        raise MODAL.refuses(error) from error
    except modal_errors.ResourceExhaustedError as error:
        raise MODAL.has_none_now(error) from error
    except (modal_errors.Error, OSError) as error:
        raise MODAL.gave_none(error) from error


def _image(given: str | modal.Image | None, packages: Sequence[str]) -> modal.Image:
    import modal

    base = modal.Image.from_registry(given) if isinstance(given, str) and given else given or modal.Image.debian_slim()
    # An entrypoint of the image would get our command as its arguments.
    base = base.entrypoint([]) if given else base
    return base.pip_install(*KERNEL_PACKAGES, *packages)


async def _app(name: str) -> modal.App:
    import modal

    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await modal.App.lookup.aio(name, create_if_missing=True)
    except TimeoutError as error:
        raise OSError(f"no answer within {CONNECT_SECONDS:.0f} s") from error


async def _build(image: modal.Image, app: modal.App) -> modal.Image:
    from modal.exception import ImageBuildError

    building = asyncio.ensure_future(image.build.aio(app))
    try:
        if not (await asyncio.wait({building}, timeout=QUIET_SECONDS))[0]:
            terminal.print_note("Modal builds the image: this takes a minute or so, once.")
        return await building
    except ImageBuildError as error:
        log = await _last_lines(image)
        raise KernelError(
            f"Modal could not build the image. Its log ends:\n{log or first_line(error)}\n"
            "Look at `image` and `packages` of environment_kwargs: the image must have Python with pip."
        ) from error
    finally:
        building.cancel()


async def _last_lines(image: modal.Image) -> str:
    """The end of the log of a failed build; empty when Modal does not give it."""
    from modal.exception import Error

    with contextlib.suppress(Error):
        return "".join([entry.message async for entry in image.logs.tail.aio(LOG_LINES)]).strip()
    return ""
