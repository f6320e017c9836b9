"""Kernelspecs and provisioners as Jupyter finds them: what others installed, and ours by their own names."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase

OURS = {
    "rlm-local": "rlm_kernel.provisioners.local:LocalKernel",
    "rlm-docker": "rlm_kernel.provisioners.docker:DockerKernel",
    "rlm-installed": "rlm_kernel.provisioners.installed_kernel:InstalledKernel",
    "rlm-modal": "rlm_kernel.provisioners.modal:ModalKernel",
}
"""Our provisioners. They are not looked up: nothing can stand in for them."""

_GROUP = "jupyter_client.kernel_provisioners"
_INSTEAD = {"local-provisioner": "rlm-installed"}
"""Jupyter's own gives a kernel all of our environment, keys included."""


def names(folders: Sequence[str] | None = None) -> list[str]:
    """The kernelspecs that Jupyter finds. `folders`: where it looks; None: in all of its places."""
    from jupyter_client.kernelspec import KernelSpecManager

    where = {} if folders is None else {"kernel_dirs": list(folders)}
    return sorted(KernelSpecManager(ensure_native_kernel=False, **where).find_kernel_specs())


def folder(name: str) -> Path:
    """The folder of an installed kernelspec.

    Raises:
        ConfigError: Jupyter finds none of this name.
    """
    from jupyter_client.kernelspec import KernelSpecManager

    found = KernelSpecManager(ensure_native_kernel=False).find_kernel_specs()
    if name not in found:
        raise ConfigError(f"The kernelspec {name!r} is not installed: jupyter kernelspec list shows them.")
    return Path(found[name])


def provisioner_name(fields: dict[str, Any]) -> str:
    """The provisioner that starts a kernelspec of these fields for us."""
    asked = (fields.get("metadata") or {}).get("kernel_provisioner", {}).get("provisioner_name", "local-provisioner")
    return _INSTEAD.get(asked, str(asked))


def provisioner_class(name: str) -> type[KernelProvisionerBase]:
    """The class of a provisioner.

    Raises:
        ConfigError: it is not installed.
    """
    if name in OURS:
        module, _, attribute = OURS[name].partition(":")
        found: type[KernelProvisionerBase] = getattr(importlib.import_module(module), attribute)
        return found
    for entry in metadata.entry_points(group=_GROUP, name=name):
        loaded: type[KernelProvisionerBase] = entry.load()
        return loaded
    raise ConfigError(f"The kernelspec asks for the provisioner {name!r}, which is not installed here.")
