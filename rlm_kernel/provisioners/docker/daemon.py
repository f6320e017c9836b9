"""The connection to the Docker engine through docker-py, and its errors as ours, with the next step."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rlm_kernel.errors import ConfigError, KernelError, RLMError

if TYPE_CHECKING:
    from docker import APIClient

BACK_SECONDS = 20.0
"""An engine that was there a moment ago is being restarted: it is waited for as long as this."""
_ASK_AGAIN_SECONDS = 0.25
LABEL = "rlm-kernel.host"
"""On every container: the machine and the process whose kernel it holds."""
DEFAULT_HOST = "unix:///var/run/docker.sock"
_lock = threading.Lock()
_clients: dict[str, APIClient] = {}

_REFUSALS: tuple[tuple[re.Pattern[str], type[RLMError], str], ...] = (
    (
        re.compile("no space left on device"),
        KernelError,
        "the engine's disk is full: docker system prune makes room",
    ),
    (
        re.compile("could not select device driver"),
        ConfigError,
        "gpus needs a graphics card and NVIDIA's container toolkit",
    ),
    (
        re.compile("bind source path does not exist|mount path|[Dd]uplicate mount point|invalid mount"),
        ConfigError,
        "see mounts",
    ),
    (re.compile("[Rr]ange of CPUs"), ConfigError, "ask for fewer cpus"),
    (re.compile("[Mm]inimum memory"), ConfigError, "ask for more memory"),
    (
        re.compile(r"network [^\n]{0,300}? not found"),
        ConfigError,
        "docker network ls lists what network may be",
    ),
    (
        re.compile(r'"?python3"?:? [^\n]{0,300}?not found'),
        ConfigError,
        "the image has no python3: choose one that has",
    ),
)
"""What the engine says, the error that it becomes, and what helps."""


def check_installation() -> None:
    """See that docker-py is there, without importing it.

    Raises:
        ConfigError: it is not.
    """
    try:
        importlib.metadata.version("docker")
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError("environment='docker' needs docker-py: pip install 'rlm-kernel[docker]'.") from None


def host() -> str:
    """Where the engine is."""
    return os.environ.get("DOCKER_HOST") or DEFAULT_HOST


def engine() -> APIClient:
    """The client of the engine, one for the process. Blocks: up to `BACK_SECONDS` if the engine was there before.

    Raises:
        ConfigError: docker-py is not installed, or its settings are wrong.
        KernelError: no engine answers, or it is not for us.
    """
    check_installation()
    with _lock:
        client = _clients.get(host())
        patience = 0.0 if client is None else BACK_SECONDS
        if client is None or not _answers(client):
            client = _clients[host()] = _connect_before(time.monotonic() + patience)
            _remove_orphans(client)
        return client


def owner() -> str:
    """This process, for the label of its containers."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _remove_orphans(client: APIClient) -> None:
    """Remove containers that were made and never started, by processes of this machine that have died in between."""
    from docker.errors import APIError

    for container in client.containers(all=True, filters={"label": LABEL, "status": "created"}):
        machine, _, process = container["Labels"][LABEL].rpartition(":")
        if machine == socket.gethostname() and not _lives(process):
            with contextlib.suppress(APIError):  # somebody else was faster
                client.remove_container(container["Id"], force=True)


def _lives(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _connect_before(deadline: float) -> APIClient:
    while True:
        try:
            return _connect()
        except KernelError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_ASK_AGAIN_SECONDS)


def _connect() -> APIClient:
    import docker
    from docker.errors import DockerException

    try:
        ping()
        return docker.APIClient(version="auto", **docker.utils.kwargs_from_env())
    except (OSError, DockerException) as error:
        raise _unreachable(error) from error


def ping() -> None:
    """See that somebody listens at a Unix socket. docker-py would leave a socket open when nobody does.

    Raises:
        OSError: nobody does, or not for us.
    """
    if host().startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as handover:
            handover.connect(host().removeprefix("unix://"))


def _answers(client: APIClient) -> bool:
    import requests
    from docker.errors import DockerException

    try:
        ping()
        return bool(client.ping())
    except (OSError, requests.RequestException, DockerException):
        client.close()
        return False


def _unreachable(error: Exception) -> RLMError:
    if isinstance(error, PermissionError):
        return KernelError(
            f"You may not use the Docker engine at {host()}: add yourself to the group docker "
            "(sudo usermod -aG docker $USER, then log in again), or use rootless Docker and DOCKER_HOST."
        )
    if any(word in str(error) for word in ("Invalid bind address", "TLS", "tls", "certificate")):
        return ConfigError(f"DOCKER_HOST or the TLS files of Docker are not right: {error}.")
    return KernelError(
        f"No Docker engine answers at {host()}: start it (sudo systemctl start docker, or Docker Desktop), "
        f"or set DOCKER_HOST. It was said: {error}"
    )


@contextlib.contextmanager
def translate_errors(doing: str) -> Iterator[None]:
    """Make an error of the engine one of ours.

    Args:
        doing: what cannot be done, e.g. ``"The container could not be started"``.
    """
    import requests
    from docker.errors import APIError, DockerException

    try:
        yield
    except APIError as error:
        raise _refusal(doing, error.explanation or str(error)) from error
    except requests.RequestException as error:
        raise KernelError(f"{doing}, the Docker engine at {host()} has gone: {error}") from error
    except DockerException as error:
        raise KernelError(f"{doing}: {error}") from error


def _refusal(doing: str, said: str) -> RLMError:
    found = next(((kind, hint) for pattern, kind, hint in _REFUSALS if pattern.search(said)), None)
    if found is None:
        return KernelError(f"{doing}. Docker says: {said}")
    kind, hint = found
    return kind(f"{doing}: {hint}. Docker says: {said}")


def shares_sockets(client: APIClient) -> bool:
    """Whether a Unix socket of this machine can be mounted into a container: not from elsewhere, not through a VM."""
    if not host().startswith("unix://"):
        return False
    info = client.info()
    guarded = any("name=selinux" in option for option in info.get("SecurityOptions") or ())
    return info["OSType"] == "linux" and "Desktop" not in info["OperatingSystem"] and os.name == "posix" and not guarded


def _forget_clients() -> None:
    global _lock, _clients
    _lock, _clients = threading.Lock(), {}


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_forget_clients)
