"""Find the kernelspec of an environment, and check its options.

An environment is a kernelspec folder. Ours are in the package (`environments/`), which is searched first, so that no
file of a user or a project can replace them. Any other name is a kernelspec that Jupyter finds: a user's conda or GPU
kernel is an environment too.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlm_kernel.errors import ConfigError
from rlm_kernel.parsing.compiler import Compiler
from rlm_kernel.values import GIVE_PLAIN

if TYPE_CHECKING:
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase

OUR_PROVISIONERS = {
    "rlm-local": "rlm_kernel.provisioners.local:LocalKernel",
    "rlm-docker": "rlm_kernel.provisioners.docker.provisioner:DockerKernel",
    "rlm-installed": "rlm_kernel.provisioners.installed:InstalledKernel",
    "rlm-modal": "rlm_kernel.provisioners.modal.provisioner:ModalKernel",
    "rlm-prime": "rlm_kernel.provisioners.prime.provisioner:PrimeKernel",
    "rlm-daytona": "rlm_kernel.provisioners.daytona.provisioner:DaytonaKernel",
    "rlm-e2b": "rlm_kernel.provisioners.e2b.provisioner:E2BKernel",
    "rlm-jupyter": "rlm_kernel.provisioners.jupyter.provisioner:JupyterKernel",
    "rlm-ssh": "rlm_kernel.provisioners.ssh.provisioner:SSHKernel",
}
"""Our provisioners. They are not looked up as entry points, so no other package can replace them."""

_GROUP = "jupyter_client.kernel_provisioners"
_INSTEAD_OF = {"local-provisioner": "rlm-installed"}
"""Jupyter's own provisioner passes our whole environment to a kernel, including keys."""

AVAILABLE = {
    "local": "rlm-local",
    "docker": "rlm-docker",
    "modal": "rlm-modal",
    "prime": "rlm-prime",
    "daytona": "rlm-daytona",
    "e2b": "rlm-e2b",
    "jupyter": "rlm-jupyter",
    "ssh": "rlm-ssh",
}
"""Our environments: documented name to kernelspec."""

ALIASES = {"ipython": "local"}
"""Environments of the reference that are one of ours."""
_OF_IPYTHON = ("kernel_mode", "startup_timeout", "subcall_timeout", "max_concurrent_subcalls")
"""Options of the reference's `ipython` that have no effect here: every kernel is a process, and the limits of the run
hold for sub-calls."""


class SessionOption(NamedTuple):
    """An option of every environment. `reaches_out`: whether it opens something of this machine."""

    kinds: tuple[type[Any], ...]
    description: str
    reaches_out: bool


SESSION_OPTIONS = {
    "setup_code": SessionOption((str,), "a string of Python code", reaches_out=False),  # runs where the cells run
    "cell_timeout": SessionOption((int, float), "a number of seconds", reaches_out=False),
    "pool": SessionOption((int,), "a number of kernels", reaches_out=True),
    "attachable": SessionOption((bool,), "True or False", reaches_out=True),
}
_UNKNOWN_PLACE = "how it holds code in is not known"
MAX_POOLED = 100
_MAGIC = re.compile(r"^[ \t]*+[%!]|\?(?:[ \t]++)?$|=[ \t]*+[%!]", re.MULTILINE)
NOTEBOOK_KERNELSPEC = "rlm"
"""Our kernelspec with the model's REPL for users' notebooks. It is not an environment of a run."""

_TAKE_PACKAGES = ("rlm-docker", "rlm-modal", "rlm-prime", "rlm-daytona", "rlm-e2b")
_MISSING_MODULE = re.compile(r"No module named '(\w+)")


def installed_names(folders: Sequence[str] | None = None) -> list[str]:
    """The kernelspecs that Jupyter finds. `folders`: where to look; None: in all of Jupyter's folders."""
    return sorted(_find_installed(**({} if folders is None else {"kernel_dirs": list(folders)})))


def installed_folder(name: str) -> Path:
    """The folder of an installed kernelspec.

    Raises:
        ConfigError: Jupyter finds none of this name.
    """
    found = _find_installed()
    if name not in found:
        raise ConfigError(f"The kernelspec {name!r} is not installed: jupyter kernelspec list shows them.")
    return Path(found[name])


def _find_installed(**options: Any) -> dict[str, str]:
    """The folders of the kernelspecs that Jupyter finds, by name. `options`: of `KernelSpecManager`."""
    from jupyter_client.kernelspec import KernelSpecManager

    return KernelSpecManager(ensure_native_kernel=False, **options).find_kernel_specs()


def provisioner_name(fields: dict[str, Any]) -> str:
    """The provisioner that starts a kernelspec of these fields for us."""
    asked = (fields.get("metadata") or {}).get("kernel_provisioner", {}).get("provisioner_name", "local-provisioner")
    return _INSTEAD_OF.get(asked, str(asked))


def provisioner_class(name: str) -> type[KernelProvisionerBase]:
    """The class of a provisioner.

    Raises:
        ConfigError: it is not installed.
    """
    if name in OUR_PROVISIONERS:
        module, _, attribute = OUR_PROVISIONERS[name].partition(":")
        found: type[KernelProvisionerBase] = getattr(importlib.import_module(module), attribute)
        return found
    for entry in metadata.entry_points(group=_GROUP, name=name):
        loaded: type[KernelProvisionerBase] = entry.load()
        return loaded
    raise ConfigError(f"The kernelspec asks for the provisioner {name!r}, which is not installed here.")


@dataclass(frozen=True, slots=True)
class Environment:
    """Where and how the cells of a run are executed.

    Attributes:
        name: as the user wrote it, e.g. ``"local"``.
        kernelspec: the name of the kernelspec folder.
        options: overrides of the provisioner's configuration.
        setup_code: a cell to run before the first turn.
        cell_timeout: the most seconds of a cell, or None.
        pool: how many kernels are started ahead of use.
        attachable: whether other processes of this user may attach to the live REPL.
        modules: a folder of this machine whose modules `setup_code` may import, or None.
    """

    name: str
    kernelspec: str
    options: Mapping[str, Any]
    setup_code: str | None = None
    cell_timeout: float | None = None
    pool: int = 0
    attachable: bool = False
    modules: str | None = None

    def load(self, seed: int | None = None) -> KernelSpec:
        """The kernelspec, with the options in its provisioner's configuration. `seed`: for the kernel's hashes."""
        from jupyter_client.kernelspec import KernelSpec

        fields = _fields(self.kernelspec)
        hashes = {} if seed is None else {"PYTHONHASHSEED": str(seed)}
        provisioner = fields["metadata"]["kernel_provisioner"]
        config = {**provisioner.get("config", {}), **self.options}
        if (name := provisioner_name(fields)) in OUR_PROVISIONERS:
            env = {**provisioner.get("config", {}).get("env", {}), **hashes, **self.options.get("env", {})}
            config |= {"env": env, "private_cwd": True}
            if name == "rlm-local" and self.attachable:
                config |= {"fork": False, "attachable": True}
        else:
            fields["env"] = {**fields.get("env", {}), **hashes}
        provisioner |= {"provisioner_name": name, "config": config}
        return KernelSpec(resource_dir=str(spec_folder(self.kernelspec)), **fields)

    @property
    def setup(self) -> tuple[str, ...]:
        """The cells to run before the first turn."""
        path = f"__import__('sys').path.append({self.modules!r})" if self.modules and self.setup_code else None
        return tuple(filter(None, (path, self.setup_code)))

    @property
    def sees_host_files(self) -> bool:
        """Whether its kernels read the files of this machine by the same paths: the provisioner says so."""
        fields = _fields(self.kernelspec)
        sees = getattr(provisioner_class(provisioner_name(fields)), "sees_host_files", None)
        config = fields["metadata"]["kernel_provisioner"].get("config", {})
        return sees is not None and bool(sees({**config, **self.options}))

    def how_to_read(self, error: str) -> str:
        """Advice for a value that the kernel cannot read. `error`: the error in the kernel."""
        if error.startswith("MemoryError"):
            return "It needs more memory: raise environment_kwargs['memory']."
        module = _MISSING_MODULE.search(error)
        if module is None:
            return f"{GIVE_PLAIN.capitalize()}."
        if self.kernelspec in _TAKE_PACKAGES:
            return f"Give environment_kwargs={{'packages': [{module[1]!r}]}}, or {GIVE_PLAIN}."
        return f"Install {module[1]} where the kernel runs, or {GIVE_PLAIN}."


def spec_folder(name: str) -> Path:
    """The folder of a kernelspec: ours in the package or in the checkout, others where Jupyter finds them."""
    if name not in (*AVAILABLE.values(), NOTEBOOK_KERNELSPEC):
        return installed_folder(name)
    package = Path(__file__).parents[1]
    for base in (package / "environments", package.parent / "environments"):
        if (base / name / "kernel.json").is_file():
            return base / name
    raise ConfigError(f"The kernelspec {name!r} is missing from this installation: install rlm-kernel again.")


def environment(name: str, kwargs: Mapping[str, Any] | None) -> Environment:
    """The environment of this name, with checked options.

    Raises:
        ConfigError: an unknown environment or option, a value of the wrong type, or a kernelspec that cannot be read.
    """
    if not isinstance(kwargs, Mapping | None):
        raise ConfigError(f"environment_kwargs is a dict such as {{'memory': '2g'}}, not {kwargs!r}.")
    options = {key: value for key, value in (kwargs or {}).items() if value is not None}
    if isinstance(name, str) and name in ALIASES:
        name = ALIASES[name]
        options = {key: value for key, value in options.items() if key not in _OF_IPYTHON}
    kernelspec = _kernelspec(name)
    _check_options(name, kernelspec, options)
    of_session = {key: options.pop(key) for key in SESSION_OPTIONS if key in options}
    made = Environment(name, kernelspec, options, **of_session)
    if made.setup_code and made.sees_host_files:
        _check_setup(made.setup_code)
    return replace(made, modules=_script_folder()) if made.setup_code and made.sees_host_files else made


def _check_setup(code: str) -> None:
    """Check the syntax of `setup_code` for a kernel of this machine, if it has no magics of IPython."""
    if not _MAGIC.search(code) and (problem := Compiler().problem(code)) is not None:
        raise ConfigError(f"environment_kwargs['setup_code'] is not Python: {problem}.")


def _script_folder() -> str | None:
    """The folder where the running program finds its own modules: that of its script, else the working directory."""
    main = sys.modules.get("__main__")
    script = getattr(main, "__file__", None) if getattr(main, "__spec__", None) is None else None
    with contextlib.suppress(OSError):  # the working directory was removed
        return str(Path(script).resolve().parent if script else Path.cwd())
    return None


def check_name(name: str) -> None:
    """Check that there is an environment of this name; its options are not checked.

    Raises:
        ConfigError: there is none.
    """
    _kernelspec(ALIASES.get(name, name))


def reach_of_place(name: str) -> str:
    """What the code in an environment can reach with any options, in words; empty: nothing.

    Raises:
        ConfigError: the environment does not exist.
    """
    return str(getattr(_provisioner(name), "reach", _UNKNOWN_PLACE))


def reaches_out(name: str, option: str, value: Any) -> bool:
    """Whether an option of an environment opens something outside of the kernel. Unknown options do.

    Raises:
        ConfigError: the environment does not exist.
    """
    if option in SESSION_OPTIONS:
        return SESSION_OPTIONS[option].reaches_out
    trait = _provisioner(name).class_traits(environment=True).get(option)
    if trait is None:
        return True
    if value in (None, "", [], {}, trait.default_value):
        return False
    opens = trait.metadata.get("reaches_out", True)
    try:
        return bool(opens(value) if callable(opens) else opens)
    except (TypeError, ValueError):  # not a valid value of this option
        return True


def is_indispensable(name: str, option: str) -> bool:
    """Whether a run cannot be repeated without an option of its environment."""
    trait = _provisioner(name).class_traits(environment=True).get(option)
    return trait is not None and bool(trait.metadata.get("needed"))


def _provisioner(name: str) -> Any:
    return provisioner_class(provisioner_name(_fields(_kernelspec(name))))


def _kernelspec(name: str) -> str:
    """The kernelspec of an environment."""
    if isinstance(name, str):
        if name in AVAILABLE or name in AVAILABLE.values():
            return AVAILABLE.get(name, name)
        if name.lower() in installed_names():  # Jupyter ignores the case, and lists lower-case names
            return name.lower()
    allowed = ", ".join(map(repr, AVAILABLE))
    others = ", ".join(map(repr, [spec for spec in installed_names() if spec not in AVAILABLE.values()])) or "none"
    raise ConfigError(
        f"Unknown environment {name!r}. Allowed: {allowed}, or the name of an installed kernelspec (here: {others})."
    )


def _fields(kernelspec: str) -> dict[str, Any]:
    """The fields of a kernelspec, without those that are null."""
    file = spec_folder(kernelspec) / "kernel.json"
    try:
        fields = _present(json.loads(file.read_text("utf-8")))
        metadata = fields["metadata"] = _present(fields.get("metadata"))
        metadata["kernel_provisioner"] = _present(metadata.get("kernel_provisioner"))
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"The kernelspec {kernelspec!r} cannot be read, mend {file}: {error}") from error
    return fields


def _present(fields: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in ({} if fields is None else fields).items() if value is not None}


def _check_options(name: str, kernelspec: str, options: Mapping[str, Any]) -> None:
    of_provisioner = {key: value for key, value in options.items() if key not in SESSION_OPTIONS}
    for key in options.keys() - of_provisioner.keys():
        _check_session_option(key, options[key])
    if kernelspec != "rlm-local" or of_provisioner:
        _check_provisioner(name, _fields(kernelspec), of_provisioner)


def _check_provisioner(name: str, fields: dict[str, Any], options: Mapping[str, Any]) -> None:
    from traitlets import TraitError

    if str(fields.get("language")).lower() != "python":
        raise ConfigError(f"environment={name!r}: its language is {fields.get('language')!r}, and cells are Python.")
    provisioner = provisioner_class(provisioner_name(fields))
    if hasattr(provisioner, "check_installation"):
        provisioner.check_installation()
    allowed = provisioner.class_trait_names(environment=True)
    for key, value in options.items():
        if key not in allowed:
            names = ", ".join([*SESSION_OPTIONS, *allowed])
            raise ConfigError(f"environment_kwargs has no option {key!r} for {name!r}. Allowed: {names}.")
        try:
            provisioner(**{key: value})
        except TraitError as error:
            raise ConfigError(f"environment_kwargs[{key!r}]: {error}") from error
    if hasattr(provisioner, "check_options"):
        configured = fields["metadata"]["kernel_provisioner"].get("config")
        try:
            provisioner.check_options({**(configured or {}), **options})
        except TraitError as error:
            raise ConfigError(f"environment_kwargs: {error}") from error


def _check_session_option(key: str, value: Any) -> None:
    option = SESSION_OPTIONS[key]
    if not isinstance(value, option.kinds) or isinstance(value, bool) != (bool in option.kinds):
        raise ConfigError(f"environment_kwargs[{key!r}] must be {option.description}, not {type(value).__name__}.")
    if key == "cell_timeout" and not value > 0:  # also refuses NaN
        raise ConfigError(f"environment_kwargs['cell_timeout'] must be greater than 0, not {value!r}.")
    if key == "pool" and not 0 <= value <= MAX_POOLED:
        raise ConfigError(f"environment_kwargs['pool'] must be from 0 to {MAX_POOLED}, not {value!r}.")
