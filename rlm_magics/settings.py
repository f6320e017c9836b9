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
"""What is set for one backend or environment, and must not reach another: its server would get another's key."""


class Settings(HasTraits):
    """The settings. An empty text, an empty dict and None stand for nothing."""

    backend = Unicode("openai", help="The provider of the model; another one forgets the five below.").tag(config=True)
    model = Unicode("", help="The model.").tag(config=True)
    base_url = Unicode("", help="The provider's endpoint.").tag(config=True)
    backend_kwargs = Dict(help="More arguments of the backend.").tag(config=True)
    sub_backend = Unicode("", help="The provider of sub-calls; empty: the same.").tag(config=True)
    sub_model = Unicode("", help="The model of sub-calls; empty: the same.").tag(config=True)
    environment = Unicode("local", help="Where the model's cells run; another forgets the options.").tag(config=True)
    environment_kwargs = Dict(help="Options of the environment.").tag(config=True)
    attachable = Bool(False, help="Whether others of this user may look into the live REPL.").tag(config=True)
    max_iterations = Int(30, help="Turns of the root model.").tag(config=True)
    max_depth = Int(1, help="Levels of RLMs.").tag(config=True)
    max_budget = Float(None, allow_none=True, help="US dollars that a run may cost.").tag(config=True)
    max_timeout = Float(None, allow_none=True, help="Seconds that a run may take.").tag(config=True)
    max_tokens = Int(None, allow_none=True, help="Tokens that a run may use.").tag(config=True)
    max_errors = Int(None, allow_none=True, help="Cells in a row that may raise.").tag(config=True)
    prompts = Enum(["", "large", "small"], "", help="The prompt profile; empty: the backend's.").tag(config=True)
    persistent = Bool(False, help="Keep one kernel over cells with the same options.").tag(config=True)
    log_dir = Unicode(f"./{FOLDER}", help="Where logs and notebooks of runs are kept; empty: nowhere.").tag(config=True)
    view = Enum(["live", "verbose", "quiet"], "live", help="How much of a run is shown.").tag(config=True)


def values(settings: HasTraits) -> dict[str, Any]:
    """All settings by name."""
    return {name: getattr(settings, name) for name in Settings.class_own_traits()}


def value(settings: HasTraits, name: str) -> Any:
    """One of them.

    Raises:
        ConfigError: there is none of this name.
    """
    _check_name(name)
    return getattr(settings, name)


def render_settings(settings: HasTraits) -> str:
    """All settings, a line each; a star marks those that are not as they came."""
    traits = Settings.class_own_traits()
    width = max(map(len, traits))
    lines = []
    for name, trait in traits.items():
        value = getattr(settings, name)
        mark = "*" if value != trait.default() else " "
        lines.append(f"{mark} {name:{width}}  {value!r:<14}  {trait.help}")
    return "\n".join(lines)


def none_of(owner: str) -> dict[str, Any]:
    """What belongs to a backend or an environment, as long as nothing of it is set. `owner`: the setting's name."""
    return {name: Settings.class_traits()[name].default() for name in BELONGING[owner]}


def change(settings: HasTraits, name: str, text: str) -> None:
    """Set one of them; with another backend or environment, what was set for the one before is forgotten.

    Args:
        settings: all of them.
        name: the setting.
        text: its value, as Python writes it; of a setting that is a text, that text.

    Raises:
        ConfigError: there is none of this name, or the value is of another kind, or a key.
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
    """Keep the settings that are not as they came for the kernels to come. Returns the file.

    Raises:
        ConfigError: the file there is none that we could add to.
    """
    path = _folder(shell) / FILE
    kept = {name: value for name, value in values(settings).items() if value != Settings.class_traits()[name].default()}
    check_no_secret(kept)
    try:
        known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        known[SECTION] = kept
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no JSON object ({error}): repair or remove it.") from error
    write_whole(path, (json.dumps(known, indent=2) + "\n").encode())
    return path


def check_no_secret(named: dict[str, Any]) -> None:
    """Refuse a key where it would be written down.

    Raises:
        ConfigError: there is one.
    """
    if named_secrets(named):
        raise ConfigError(
            "An API key does not belong in a notebook or a configuration, where others read it: "
            "set it in the environment or in a .env file."
        )


def _check_name(name: str) -> None:
    known = list(Settings.class_own_traits())
    if name not in known:
        raise ConfigError(f"There is no setting {name!r}{suggestion(name, known)} There are {', '.join(known)}.")


def _read(text: str) -> Any:
    """A value as Python writes it, else the words themselves."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _folder(shell: InteractiveShell) -> Path:
    if shell.profile_dir is None:
        raise ConfigError("This IPython has no profile to keep settings in: start it with one.")
    return Path(shell.profile_dir.location)
