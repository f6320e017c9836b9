"""The defaults of `%%rlm`: shown, set, and saved in a file.

The settings are traits of the magics, so `%config RLMMagics.model = "gpt-5-mini"` and a configuration file of IPython
set them as well. `%rlm config --save` writes such a file: `ipython_config.json` of the profile.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Dict, Enum, Float, HasTraits, Int, TraitError, Unicode

from rlm_kernel.errors import ConfigError
from rlm_kernel.text import suggestion
from rlm_kernel.trajectory.log import FOLDER
from rlm_kernel.trajectory.log.atomic_files import write_whole
from rlm_kernel.trajectory.log.redaction import named_secrets

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

SECTION = "RLMMagics"
FILE = "ipython_config.json"
BELONGING = {
    "backend": ("model", "base_url", "backend_kwargs", "sub_backend", "sub_model"),
    "environment": ("environment_kwargs",),
}
"""Settings of one backend or environment. They must not be used for another one: its server would get a wrong key."""


class Settings(HasTraits):
    """The settings. An empty text, an empty dict and None mean: not set."""

    backend = Unicode("openai", help="The provider of the model; a change resets the next five.")
    model = Unicode("", help="The model.")
    base_url = Unicode("", help="The endpoint of the provider.")
    backend_kwargs = Dict(help="More arguments of the backend.")
    sub_backend = Unicode("", help="The provider for sub-calls; empty: the same.")
    sub_model = Unicode("", help="The model for sub-calls; empty: the same.")
    environment = Unicode("local", help="Where the cells of the model run; a change resets the next one.")
    environment_kwargs = Dict(help="Options of the environment.")
    attachable = Bool(False, help="Let `rlm attach` and JupyterLab connect to the REPL.")
    max_iterations = Int(30, min=1, help="Maximum turns of the root model.")
    max_depth = Int(1, min=0, help="Maximum depth of RLMs.")
    max_budget = Float(None, allow_none=True, help="Maximum cost of a run in US dollars.")
    max_timeout = Float(None, allow_none=True, help="Maximum time of a run in seconds.")
    max_tokens = Int(None, min=1, allow_none=True, help="Maximum tokens of a run.")
    max_errors = Int(None, min=1, allow_none=True, help="Maximum of consecutive cells that raise.")
    max_calls = Int(None, min=0, allow_none=True, help="Maximum prompts of sub-calls of a run.")
    prompts = Enum(["", "large", "small"], "", help="The prompt profile; empty: chosen by the backend.")
    persistent = Bool(False, help="Keep the kernel for cells with the same options.")
    log_dir = Unicode(f"./{FOLDER}", help="Folder for logs and notebooks of runs; empty: none.")
    view = Enum(["live", "verbose", "quiet"], "live", help="How much of a run is shown.")


for _trait in Settings.class_own_traits().values():
    _trait.tag(config=True)


def values(settings: HasTraits) -> dict[str, Any]:
    """All settings by name."""
    return {name: getattr(settings, name) for name in Settings.class_own_traits()}


def value(settings: HasTraits, name: str) -> Any:
    """The value of a setting.

    Raises:
        ConfigError: there is no setting of this name.
    """
    _check_name(name)
    return getattr(settings, name)


def render_settings(settings: HasTraits) -> str:
    """All settings, one per line; a star marks those that differ from the default."""
    traits = Settings.class_own_traits()
    width = max(map(len, traits))
    lines = []
    for name, trait in traits.items():
        value = getattr(settings, name)
        mark = "*" if value != trait.default() else " "
        lines.append(f"{mark} {name:{width}}  {value!r:<14}  {trait.help}")
    return "\n".join(lines)


def none_of(owner: str) -> dict[str, Any]:
    """The defaults of the settings that belong to a backend or an environment. `owner`: the name of its setting."""
    return {name: Settings.class_traits()[name].default() for name in BELONGING[owner]}


def change(settings: HasTraits, name: str, text: str) -> None:
    """Change a setting. A new backend or environment resets the settings that belong to the old one.

    Args:
        settings: all of them.
        name: the setting.
        text: its value as a Python literal; for a text setting also the plain text.

    Raises:
        ConfigError: there is no such setting, or the value has a wrong type or holds an API key.
    """
    _check_name(name)
    value = text if isinstance(Settings.class_traits()[name], Unicode) and text[:1] not in ("'", '"') else _read(text)
    check_no_secret({name: value})
    before = getattr(settings, name)
    try:
        setattr(settings, name, value)
    except TraitError as error:
        raise ConfigError(f"{name}: {error}") from error
    if name in BELONGING and getattr(settings, name) != before:
        for belonging, empty in none_of(name).items():
            setattr(settings, belonging, empty)


def save(settings: HasTraits, shell: InteractiveShell) -> Path:
    """Save the settings that differ from the default, for new kernels. Returns the file.

    Raises:
        ConfigError: the existing file is not a JSON object.
    """
    path = _folder(shell) / FILE
    kept = {name: value for name, value in values(settings).items() if value != Settings.class_traits()[name].default()}
    check_no_secret(kept)
    try:
        known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        known[SECTION] = kept
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not a JSON object ({error}): repair or remove it.") from error
    write_whole(path, (json.dumps(known, indent=2) + "\n").encode())
    return path


def check_no_secret(named: dict[str, Any]) -> None:
    """Check that no API key is among settings that are written to a file.

    Raises:
        ConfigError: there is a key.
    """
    if named_secrets(named):
        raise ConfigError(
            "An API key does not belong in a notebook or a configuration file, which others may read: "
            "set it in the environment or in a .env file."
        )


def _check_name(name: str) -> None:
    known = list(Settings.class_own_traits())
    if name not in known:
        raise ConfigError(f"There is no setting {name!r}{suggestion(name, known)} There are {', '.join(known)}.")


def _read(text: str) -> Any:
    """The value of a Python literal; any other text as it is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _folder(shell: InteractiveShell) -> Path:
    if shell.profile_dir is None:
        raise ConfigError("This IPython has no profile, so settings cannot be saved: start IPython with a profile.")
    return Path(shell.profile_dir.location)
