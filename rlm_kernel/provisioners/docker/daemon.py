"""The connection to the Docker engine through docker-py, and its errors as ours, with the next step."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rlm_kernel.errors import ConfigError, KernelError, RLMError, check_extra

if TYPE_CHECKING:
    from docker import APIClient

RESTART_SECONDS = 20.0
"""How long to wait for an engine that answered before: it may be restarting."""
_ASK_AGAIN_SECONDS = 0.25
LABEL = "rlm-kernel.host"
"""Label of every container: the machine and the process whose kernel it holds."""
DEFAULT_HOST = "unix:///var/run/docker.sock"
_lock = threading.Lock()
_clients: dict[str, APIClient] = {}

_REFUSALS: tuple[tuple[re.Pattern[str], type[RLMError], str], ...] = (
    (re.compile("no space left on device"), KernelError, "the engine's disk is full: docker system prune makes room"),
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
    (re.compile(r"network [^\n]{0,300}? not found"), ConfigError, "docker network ls lists what network may be"),
    (re.compile(r'"?python3"?:? [^\n]{0,300}?not found'), ConfigError, "the image has no python3: choose one that has"),
)
"""Patterns of the engine's messages, the error that each becomes, and what helps."""


def require_docker() -> None:
    """Check that docker-py is installed.

    Raises:
        ConfigError: it is not.
    """
    check_extra("environment='docker'", "docker", "docker")


def host() -> str:
    """The address of the engine."""
    return os.environ.get("DOCKER_HOST") or DEFAULT_HOST


def engine() -> APIClient:
    """The client of the engine, one for the process. Blocks: up to `RESTART_SECONDS` if it answered before.

    Raises:
        ConfigError: docker-py is not installed, or its settings are wrong.
        KernelError: no engine answers, or this user may not use it.
    """
    require_docker()
    with _lock:
        client = _clients.get(host())
        patience = 0.0 if client is None else RESTART_SECONDS
        if client is None or not _answers(client):
            client = _clients[host()] = _connect_before(time.monotonic() + patience)
            _remove_orphans(client)
        return client


def owner() -> str:
    """The value of `LABEL` for this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _remove_orphans(client: APIClient) -> None:
    """Remove containers that were created and never started by processes of this machine that have ended."""
    from docker.errors import APIError

    for container in client.containers(all=True, filters={"label": LABEL, "status": "created"}):
        machine, _, process = container["Labels"][LABEL].rpartition(":")
        if machine == socket.gethostname() and not _lives(process):
            with contextlib.suppress(APIError):  # another process may have removed it
                client.remove_container(container["Id"], force=True)


def _lives(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (OSError, ValueError) as error:
        return isinstance(error, PermissionError)
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
    """Check that the Unix socket accepts connections: docker-py leaves a socket open when it does not.

    Raises:
        OSError: it does not, or this user may not use it.
    """
    if host().startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(host().removeprefix("unix://"))


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
        f"or set DOCKER_HOST. The error: {error}"
    )


@contextlib.contextmanager
def translate_errors(doing: str) -> Iterator[None]:
    """Turn errors of the engine into ours.

    Args:
        doing: what failed, e.g. ``"The container could not be started"``.
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


def _refusal(doing: str, message: str) -> RLMError:
    for pattern, kind, hint in _REFUSALS:
        if pattern.search(message):
            return kind(f"{doing}: {hint}. Docker says: {message}")
    return KernelError(f"{doing}. Docker says: {message}")


def shares_sockets(client: APIClient) -> bool:
    """Whether a Unix socket of this machine can be mounted into a container: not remotely, and not through a VM."""
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
