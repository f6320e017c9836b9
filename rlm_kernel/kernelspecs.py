"""From the name of an environment and its options to a kernelspec.

An environment is a kernelspec folder. Ours lie in the package (`environments/`), and are looked for there first, so
that no file of the user or of a project can stand in for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from jupyter_client.kernelspec import KernelSpec

AVAILABLE = {"local": "rlm-local"}
"""Environments that are built: the documented name to the kernelspec."""

ANNOUNCED = {
    "docker": "Kernels elsewhere",
    "modal": "Kernels elsewhere",
    "prime": "Kernels elsewhere",
    "agent": "Kernels elsewhere",
}
"""Environments of the documents that a later issue brings."""

_SESSION_OPTIONS = {"setup_code": str, "cell_timeout": (int, float)}


@dataclass(frozen=True, slots=True)
class Environment:
    """Where and how the cells of a run are executed.

    Attributes:
        name: the documented name, e.g. ``"local"``.
        kernelspec: the name of the kernelspec folder.
        options: overrides of the provisioner's configuration.
        setup_code: a cell to run before the first turn.
        cell_timeout: seconds a cell may take, or None.
    """

    name: str
    kernelspec: str
    options: Mapping[str, Any]
    setup_code: str | None = None
    cell_timeout: float | None = None

    def load(self, seed: int | None = None) -> KernelSpec:
        """The kernelspec with the options in the configuration of its provisioner. `seed`: of the kernel's hashes."""
        from jupyter_client.kernelspec import KernelSpec

        folder = spec_folder(self.kernelspec)
        fields = json.loads((folder / "kernel.json").read_text("utf-8"))
        provisioner = fields["metadata"]["kernel_provisioner"]
        config = {**provisioner.get("config", {}), **self.options}
        if seed is not None:
            config["env"] = {"PYTHONHASHSEED": str(seed), **config.get("env", {})}
        provisioner["config"] = config
        return KernelSpec(resource_dir=str(folder), **fields)


def spec_folder(name: str) -> Path:
    """The folder of one of our kernelspecs: in the package, or beside it in a checkout."""
    package = Path(__file__).parent
    for base in (package / "environments", package.parent / "environments"):
        if (base / name / "kernel.json").is_file():
            return base / name
    raise ConfigError(f"The kernelspec {name!r} is missing from this installation: install rlm-kernel again.")


def environment(name: str, kwargs: Mapping[str, Any] | None) -> Environment:
    """Check a name and its options before anything starts.

    Raises:
        ConfigError: an unknown environment or option, or a value of the wrong type.
        NotImplementedError: an environment of the documents that is not built yet.
    """
    if isinstance(name, str) and name in ANNOUNCED:
        raise NotImplementedError(
            f"environment={name!r} is not built yet: it comes with the issue “{ANNOUNCED[name]}”. "
            f"Available now: {', '.join(map(repr, AVAILABLE))}."
        )
    if not isinstance(name, str) or name not in AVAILABLE:
        allowed = ", ".join(map(repr, [*AVAILABLE, *ANNOUNCED]))
        raise ConfigError(f"Unknown environment {name!r}. Allowed: {allowed}.")
    if not isinstance(kwargs, Mapping | None):
        raise ConfigError(f"environment_kwargs is a dict such as {{'memory': '2g'}}, not {kwargs!r}.")
    options = {key: value for key, value in (kwargs or {}).items() if value is not None}
    _check_options(name, options)
    setup_code, cell_timeout = options.pop("setup_code", None), options.pop("cell_timeout", None)
    return Environment(name, AVAILABLE[name], options, setup_code, cell_timeout)


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    of_provisioner = {key: value for key, value in options.items() if key not in _SESSION_OPTIONS}
    for key in options.keys() - of_provisioner.keys():
        _check_session_option(key, options[key])
    if not of_provisioner:
        return
    from traitlets import TraitError

    from rlm_kernel.provisioners.local import LocalKernel

    allowed = LocalKernel.class_trait_names(environment=True)
    for key, value in of_provisioner.items():
        if key not in allowed:
            names = ", ".join([*_SESSION_OPTIONS, *allowed])
            raise ConfigError(f"environment_kwargs has no option {key!r} for {name!r}. Allowed: {names}.")
        try:
            LocalKernel(**{key: value})
        except TraitError as error:
            raise ConfigError(f"environment_kwargs[{key!r}]: {error}") from error


def _check_session_option(key: str, value: Any) -> None:
    if not isinstance(value, _SESSION_OPTIONS[key]) or isinstance(value, bool):  # type: ignore[arg-type]
        wanted = "a string of Python code" if key == "setup_code" else "a number of seconds"
        raise ConfigError(f"environment_kwargs[{key!r}] must be {wanted}, not {type(value).__name__}.")
    if key == "cell_timeout" and not value > 0:  # not a number is no number of seconds either
        raise ConfigError(f"environment_kwargs['cell_timeout'] must be greater than 0, not {value!r}.")
