"""A container for one kernel, and its standard streams.

Its first process is the watchdog. No signal from inside stops or ends it, and it reaps orphans. It ends with its
standard input, or by SIGKILL from outside, which is what `docker stop` sends. Its input is attached to this process, so
a container does not outlive its host, even one that was killed. The engine removes the container when it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel._async import shielded
from rlm_kernel.provisioners.docker.daemon import LABEL, owner, ping, translate_errors
from rlm_kernel.provisioners.docker.streams import Streams, attach, release
from rlm_kernel.provisioners.mounts import Mount

if TYPE_CHECKING:
    from docker import APIClient

HOME = "/home/rlm"
WORK = "/work"
OURS = "/rlm"
"""Where the launcher and the handover socket are mounted."""
_STDOUT = 1
LOG_BYTES = 4_000


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a container may have.

    Attributes:
        image: the id of its image.
        network: the engine's name for it.
        memory: bytes, of which the temporary directories are a part.
        cpus: cores.
        gpus: in Docker's form: ``"all"``, a number, or ``"device=0,1"``; None: no GPU.
        env: environment variables, in addition to those of the image.
        mounts: files and directories of the engine's machine that it sees.
        cwd: its working directory.
        pids: the most processes and threads.
    """

    image: str
    network: str
    memory: int
    cpus: float
    gpus: str | int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mount] = ()
    cwd: str = WORK
    pids: int = 512

    def host_config(self, client: APIClient) -> Any:
        """The host configuration of the engine's API."""
        from docker.types import DeviceRequest, Ulimit
        from docker.types import Mount as Bind

        tmpfs = f"rw,nosuid,nodev,mode=1777,size={self.memory // 2}"  # Podman knows no uid= here
        return client.create_host_config(
            auto_remove=True,
            network_mode=self.network,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            read_only=True,
            tmpfs=dict.fromkeys(("/tmp", HOME, WORK), tmpfs),  # noqa: S108
            pids_limit=self.pids,
            mem_limit=self.memory,
            memswap_limit=self.memory,
            nano_cpus=int(min(self.cpus, client.info()["NCPU"]) * 1e9),
            ipc_mode="private",
            ulimits=[Ulimit(name="core", soft=0, hard=0)],
            log_config={"type": "none"},
            mounts=[Bind(m.target, m.source, type="bind", read_only=not m.writable) for m in self.mounts],
            device_requests=None if self.gpus is None else [DeviceRequest(**_gpus(self.gpus))],
        )

    def environ(self) -> dict[str, str]:
        """The environment variables. None is taken from this process."""
        return {"HOME": HOME, "USER": "rlm", "LOGNAME": "rlm", "LANG": "C.UTF-8", **self.env}


def _gpus(asked: str | int) -> dict[str, Any]:
    capabilities = [["gpu"]]
    if isinstance(asked, str) and asked.startswith("device="):
        return {"device_ids": asked.removeprefix("device=").split(","), "capabilities": capabilities}
    return {"count": -1 if asked == "all" else int(asked), "capabilities": capabilities}


class Container:
    """A running container, made by `start`. It is a `Remote` of the relay.

    Attributes:
        id: the engine's.
        log: the last of its standard error.
    """

    def __init__(self, client: APIClient, name: str, streams: Streams) -> None:
        self.id = name
        self.log = b""
        self._client = client
        self._streams = streams
        self._closed = False

    @classmethod
    async def start(cls, client: APIClient, confinement: Confinement, command: Sequence[str]) -> Container:
        """Create it, attach to it, start it.

        Args:
            client: of the engine.
            confinement: what it may have.
            command: for the image's `python3`.

        Raises:
            ConfigError, KernelError: the engine refuses.
        """
        starting = asyncio.ensure_future(asyncio.to_thread(_start, client, confinement, command))
        try:
            name, raw = await asyncio.shield(starting)
            return cls(client, name, await attach(raw))
        except BaseException:
            await shielded(_give_up(client, starting))
            raise

    async def write(self, data: bytes) -> None:
        """Write to its standard input."""
        await self._streams.write(data)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces of its standard output; ends with the container. Its standard error is kept in `log`."""
        async for stream, data in self._streams.frames():
            if stream == _STDOUT:
                yield data
            else:
                self.log = (self.log + data)[-LOG_BYTES:]

    async def close(self) -> None:
        """End and remove it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self._streams.close()
        # At interpreter exit no thread can be started; the end of its input ends the container as well.
        with contextlib.suppress(RuntimeError):
            await asyncio.shield(asyncio.to_thread(_remove, self._client, self.id))


def _start(client: APIClient, confinement: Confinement, command: Sequence[str]) -> tuple[str, Any]:
    """The id of a started container, and what docker-py gives for the connection to it."""
    name = _create(client, confinement, command)
    try:
        return name, _attach_and_start(client, name)
    except BaseException:
        _remove(client, name)
        raise


async def _give_up(client: APIClient, starting: asyncio.Future[tuple[str, Any]]) -> None:
    """Remove what `_start` makes in its thread, which cannot be cancelled."""
    await asyncio.wait({starting})
    if starting.exception() is None:
        name, raw = starting.result()
        release(raw)
        await asyncio.to_thread(_remove, client, name)


def _create(client: APIClient, confinement: Confinement, command: Sequence[str]) -> str:
    with translate_errors("The container for the kernel could not be made"):
        made = client.create_container(
            confinement.image,
            entrypoint=["python3"],
            command=list(command),
            name=f"rlm-{secrets.token_hex(6)}",
            user=f"{os.getuid()}:{os.getgid()}",
            stdin_open=True,
            stop_signal="SIGKILL",  # the first process handles no other: the code inside could send it, too
            environment=confinement.environ(),
            working_dir=confinement.cwd,
            host_config=confinement.host_config(client),
            labels={LABEL: owner()},
            use_config_proxy=False,  # it may hold a password
        )
        return str(made["Id"])


def _attach_and_start(client: APIClient, name: str) -> Any:
    """Attach before the start, so that the first output is read as well."""
    with translate_errors("The container for the kernel could not be started"):
        raw = client.attach_socket(name, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        try:
            client.start(name)
        except BaseException:
            release(raw)
            raise
        return raw


def _remove(client: APIClient, name: str) -> None:
    """Remove it, whether it runs, has ended or does not exist."""
    import requests
    from docker.errors import APIError

    # An engine that cannot be reached removes the container itself: its standard input has ended.
    with contextlib.suppress(APIError, OSError, requests.RequestException):
        ping()
        client.remove_container(name, v=True, force=True)


def launch_mount(directory: Path | None) -> Mount | None:
    """The launch directory of a Jupyter client, read-only at its own path, where that hides nothing of the image."""
    if directory is None or len(directory.parts) < 3 or directory.parts[1] in _SYSTEM:  # noqa: PLR2004 (/home/user)
        return None
    return Mount(str(directory), str(directory))


_SYSTEM = frozenset("bin boot dev etc lib lib64 proc rlm run sbin sys usr work".split())
