"""A kernel in a Docker container, without network, capabilities, and files of this machine that are not mounted.

The kernel's ZMQ sockets listen on this machine and are handed over to the container through a Unix socket. So clients
reach it directly, and it needs no writable directory of this machine. Where a Unix socket cannot be mounted (a remote
engine, Docker Desktop's virtual machine), the relay carries the messages over the container's standard streams.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from traitlets import Bool, Dict, Enum, Float, Integer, TraitError, Unicode, Union, validate

from rlm_kernel._async import shielded
from rlm_kernel.errors import ConfigError
from rlm_kernel.provisioners.docker import container, daemon
from rlm_kernel.provisioners.docker.container import Confinement, Container, launch_mount
from rlm_kernel.provisioners.docker.images import kernel_image
from rlm_kernel.provisioners.docker.socket_handover import DirectLink, SocketHandover
from rlm_kernel.provisioners.launcher import OUT_OF_MEMORY
from rlm_kernel.provisioners.mounts import Mount, mounts_of
from rlm_kernel.provisioners.relay.host_end import Remote, source
from rlm_kernel.provisioners.relay.provisioner import Link, RelayedKernel
from rlm_kernel.provisioners.traits import Memory, Packages
from rlm_kernel.text import size_in_bytes

_GPUS = re.compile(r"\A(?:all|\d+|device=[\w,:-]+)\Z")
USUAL_MEMORY = "4g"
USUAL_CPUS = 2.0


class DockerKernel(RelayedKernel):
    """The provisioner `rlm-docker`. Traits tagged `environment` are what `environment_kwargs` may set."""

    reach = ""

    image = Unicode("python:3.11-slim", help="Any image with python3; ipykernel is added when it is missing.").tag(
        environment=True, reaches_out=True, needed=True
    )
    packages = Packages(help="What pip installs besides ipykernel.").tag(environment=True, reaches_out=True)
    network = Union([Bool(), Unicode()], default_value="none", help="'none', True, or a network of Docker's.").tag(
        environment=True, reaches_out=lambda network: network not in ("none", False)
    )
    mounts = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help="Path here to path there: {'/data': '/in'}; read-only unless it ends with ':rw'.",
    ).tag(environment=True, reaches_out=True)
    memory = Memory("64m", default_value=USUAL_MEMORY, help="The most it may use.").tag(
        environment=True, reaches_out=lambda memory: size_in_bytes(memory) > size_in_bytes(USUAL_MEMORY)
    )
    cpus = Float(USUAL_CPUS, help="Cores.").tag(environment=True, reaches_out=lambda cpus: cpus > USUAL_CPUS)
    gpus = Union(
        [Integer(), Unicode()], default_value=None, allow_none=True, help="A number, 'all' or 'device=0,1'."
    ).tag(environment=True, reaches_out=True)
    transport = Enum(["auto", "ipc", "relay"], default_value="auto", help="How messages travel.").tag(
        environment=True, reaches_out=lambda transport: transport != "auto"
    )

    _container: Container | None = None

    @validate("cpus")
    def _cpus_are_positive(self, proposal: Any) -> Any:
        if not proposal["value"] >= 0.01:  # noqa: PLR2004 (the engine's bound)
            raise TraitError(f"cpus is a number of cores of at least 0.01, not {proposal['value']!r}.")
        return proposal["value"]

    @validate("gpus")
    def _gpus_are_docker_s(self, proposal: Any) -> Any:
        if not _GPUS.match(str(proposal["value"])):
            raise TraitError(f"gpus is a number, 'all' or 'device=0,1', not {proposal['value']!r}.")
        return proposal["value"]

    @validate("mounts")
    def _mounts_are_absolute(self, proposal: Any) -> Any:
        for mount in mounts_of(proposal["value"]):
            if not mount.target.startswith("/") or mount.target.rstrip("/") in ("", container.OURS):
                raise TraitError(f"{mount.target!r} cannot be a mount point: write {{'/data': '/in'}}.")
        return proposal["value"]

    @classmethod
    def check_installation(cls) -> None:
        """Check that docker-py is installed.

        Raises:
            ConfigError: it is not.
        """
        daemon.require_docker()

    # -- the start

    async def open_link(self) -> Link:
        """Start the container: with handed-over sockets if possible, otherwise with the relay."""
        client = await asyncio.to_thread(daemon.engine)
        with daemon.translate_errors("The kernel could not be started"):
            direct = self.transport == "ipc" or (
                self.transport == "auto" and await asyncio.to_thread(daemon.shares_sockets, client)
            )
        return await self._open_direct_or_relay(client) if direct else await self.open_relay()

    async def start_remote(self) -> Remote:
        """A container whose first process is the relay."""
        client = await asyncio.to_thread(daemon.engine)
        confinement = await asyncio.to_thread(self._confinement, client)
        self._container = await Container.start(client, confinement, ["-u", "-c", source("relay/remote_end.py")])
        return self._container

    async def _open_direct_or_relay(self, client: Any) -> Link:
        """Fall back to the relay if the engine sees another file system, e.g. when this process is in a container."""
        try:
            return await self._open_direct(client)
        except ConfigError as error:
            if f"{self.directory}/" not in str(error):
                raise
            if self.transport == "ipc":
                raise ConfigError(f"The engine does not see {self.directory}: give transport='relay'.") from error
            return await self.open_relay()

    async def _open_direct(self, client: Any) -> Link:
        handover = SocketHandover(self.connection_info)
        try:
            # Shielded, because its thread continues after a cancellation.
            inside = await shielded(asyncio.to_thread(self._write_directory, handover))
            confinement = await asyncio.to_thread(self._confinement, client, Mount(str(inside), container.OURS))
            command = [f"{container.OURS}/launcher.py", "--host-pipe", *self.launcher_options]
            command += ["--handover", f"{container.OURS}/fds", "-f", f"{container.OURS}/kernel.json"]
            self._container = await Container.start(client, confinement, command)
            return DirectLink(self._container, handover)
        except BaseException:
            handover.close()
            raise

    def _write_directory(self, handover: SocketHandover) -> Path:
        """Make the directory for the container: the launcher, the connection file and the handover socket."""
        assert self.directory is not None
        inside = self.directory / "in"
        shutil.rmtree(inside, ignore_errors=True)
        # Its parent is 0700, so other users cannot enter it; the container may have another uid.
        inside.mkdir(mode=0o755)
        (inside / "launcher.py").write_text(source("launcher.py"), "utf-8")
        (inside / "kernel.json").write_text(json.dumps(_as_file(self.connection_info)), "utf-8")
        handover.open(inside / "fds")
        return inside

    def _confinement(self, client: Any, *ours: Mount) -> Confinement:
        launch = launch_mount(self.launch_directory)
        network = self.network if isinstance(self.network, str) else ("bridge" if self.network else "none")
        return Confinement(
            image=kernel_image(client, self.image, self.packages),
            network=network,
            memory=size_in_bytes(self.memory),
            cpus=self.cpus,
            gpus=self.gpus,
            env=dict(self.env),
            mounts=[*ours, *([launch] if launch else []), *mounts_of(self.mounts)],
            cwd=launch.target if launch else container.WORK,
        )

    @property
    def sandbox_id(self) -> str | None:
        """The name of the container, once there is one."""
        return None if self._container is None else self._container.id

    def last_output(self) -> str:
        """The last output of the kernel's process and of the container."""
        log = "" if self._container is None else self._container.log.decode("utf-8", "replace")
        return f"{super().last_output()}{log}"

    def why(self) -> str:
        """A message if the container used all of its memory; otherwise empty."""
        if OUT_OF_MEMORY not in self.last_output():
            return ""
        return f"It used all of its memory, {self.memory}: more is given with environment_kwargs={{'memory': '8g'}}."


def _as_file(connection: Mapping[str, Any]) -> dict[str, Any]:
    """Connection information as in a connection file: the key is text."""
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in connection.items()}
