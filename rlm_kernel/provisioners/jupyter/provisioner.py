"""A kernel of a Jupyter Server, Kernel Gateway, JupyterHub or Enterprise Gateway, by URL and token."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from traitlets import Float, TraitError, Unicode, validate

from rlm_kernel.errors import ConfigError, check_extra
from rlm_kernel.provisioners.relay.provisioner import RelayedKernel
from rlm_kernel.provisioners.traits import Secret

if TYPE_CHECKING:
    from rlm_kernel.provisioners.jupyter.remote import JupyterRemote

_URL = re.compile(r"\Ahttps?://[^\s@?#]+\Z")


class JupyterKernel(RelayedKernel):
    """The provisioner `rlm-jupyter`. Traits tagged `environment` are what `environment_kwargs` may set."""

    reach = "it runs on a Jupyter server with your token, as that server's user"

    url = Unicode(None, allow_none=True, help="Of the server, e.g. 'https://hub.example/user/me'.").tag(
        environment=True, reaches_out=True, needed=True
    )
    token = Secret(allow_none=True, default_value=None, help="Of the server; JUPYTER_TOKEN when not given.").tag(
        environment=True, reaches_out=True
    )
    kernel_name = Unicode(None, allow_none=True, help="A kernelspec of the server; its default one when None.").tag(
        environment=True, reaches_out=True
    )
    connect_timeout = Float(10.0, min=0.1, help="Seconds in which the server must answer.").tag(
        environment=True, reaches_out=False
    )

    _remote: JupyterRemote | None = None

    @validate("url")
    def _url_holds_no_secret(self, proposal: Any) -> Any:
        if not _URL.match(proposal["value"]):
            raise TraitError("url is like 'https://host:8888/base', without user, token or other parameters.")
        return proposal["value"]

    @classmethod
    def check_installation(cls) -> None:
        """Check that aiohttp is installed.

        Raises:
            ConfigError: it is not.
        """
        check_extra("environment='jupyter'", "aiohttp", "jupyter")

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        """Check that there is a server.

        Raises:
            ConfigError: there is none.
        """
        _url_of(options.get("url"))

    async def start_remote(self) -> JupyterRemote:
        """Start a kernel on the server.

        Raises:
            ConfigError: the server refuses the token.
            KernelError: the server cannot be reached, or does not start the kernel.
        """
        from rlm_kernel.provisioners.jupyter.remote import JupyterRemote
        from rlm_kernel.provisioners.jupyter.server import Server

        token = self.token or os.environ.get("JUPYTER_TOKEN")
        server = Server(_url_of(self.url), token, self.connect_timeout)
        self._remote = await JupyterRemote.start(server, self.kernel_name, self.env, private=self.private_cwd)
        return self._remote

    def why(self) -> str:
        """Why the kernel ended by itself, if it is known."""
        return "" if self._remote is None else self._remote.why


def _url_of(option: str | None) -> str:
    url = option or os.environ.get("JUPYTER_SERVER_URL")
    if not url:
        raise ConfigError(
            "environment='jupyter' needs the URL of a server: set JUPYTER_SERVER_URL, or give "
            "environment_kwargs={'url': ...} in Python."
        )
    return url
