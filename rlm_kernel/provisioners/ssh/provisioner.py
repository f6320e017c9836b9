"""A kernel on another machine, over OpenSSH's own client with its configuration, agent and jump hosts."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from typing import Any

from traitlets import TraitError, Unicode, validate

from rlm_kernel.errors import ConfigError
from rlm_kernel.provisioners.relay.provisioner import RelayedKernel
from rlm_kernel.provisioners.ssh.client import SSHRemote
from rlm_kernel.provisioners.traits import Memory
from rlm_kernel.text import size_in_bytes

PATIENCE_SECONDS = 60.0
"""When the connection is cut, the other machine may not notice. So silence ends the kernel."""
_HOST = re.compile(r"\A[^\s-]\S*\Z")


class SSHKernel(RelayedKernel):
    """The provisioner `rlm-ssh`. Traits tagged `environment` are what `environment_kwargs` may set."""

    reach = "it runs on another machine as your user there, without a wall"

    host = Unicode(None, allow_none=True, help="As ssh takes it: an alias, 'user@host' or 'ssh://host:22'.").tag(
        environment=True, reaches_out=True, needed=True
    )
    python = Unicode("python3", help="A Python with ipykernel on that machine.").tag(environment=True, reaches_out=True)
    ssh_config = Unicode(None, allow_none=True, help="A configuration file of ssh instead of the user's.").tag(
        environment=True, reaches_out=True
    )
    memory = Memory("128m", allow_none=True, default_value=None, help="The most it may allocate, e.g. '2g'.").tag(
        environment=True, reaches_out=False
    )

    _remote: SSHRemote | None = None

    @validate("host")
    def _host_is_no_option(self, proposal: Any) -> Any:
        if not _HOST.match(proposal["value"]):
            raise TraitError(f"host is a name as ssh takes it, not {proposal['value']!r}.")
        return proposal["value"]

    @property
    def launcher_options(self) -> list[str]:
        """The memory limit. The machine also runs other programs, so no message says that it has no memory left."""
        return [] if self.memory is None else ["--memory", str(size_in_bytes(self.memory))]

    @property
    def patience(self) -> float:
        """Seconds of silence after which the kernel ends."""
        return PATIENCE_SECONDS

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        """Check that there is a host.

        Raises:
            ConfigError: there is none.
        """
        _host_of(options.get("host"))

    async def start_remote(self) -> SSHRemote:
        """Run the relay on the other machine.

        Raises:
            ConfigError: there is no ssh.
        """
        self._remote = await SSHRemote.start(_host_of(self.host), self.python, self.env, self._ssh_options)
        return self._remote

    @property
    def _ssh_options(self) -> list[str]:
        return [] if self.ssh_config is None else ["-F", self.ssh_config]

    def why(self) -> str:
        """What ssh says when it could not connect or lost the connection; else empty."""
        if self._remote is None or not self._remote.has_failed:
            return ""
        said = self._remote.stderr.decode("utf-8", "replace").strip()
        check = shlex.join(["ssh", *self._ssh_options, _host_of(self.host), "true"])
        return f"ssh could not connect, or lost the connection: try `{check}`. It said:\n{said}"

    def last_output(self) -> str:
        """The last output of the kernel's process, and of ssh."""
        said = "" if self._remote is None or self._remote.has_failed else self._remote.stderr.decode("utf-8", "replace")
        return f"{super().last_output()}{said}"


def _host_of(option: str | None) -> str:
    host = option or os.environ.get("RLM_SSH_HOST")
    if not host:
        raise ConfigError(
            "environment='ssh' needs a host: set RLM_SSH_HOST, or give environment_kwargs={'host': ...} in Python."
        )
    return host
