"""From the options of a command line or a cell to the arguments of a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlm_kernel.clients import registry
from rlm_kernel.clients.trust import SECRETS, Source, Sourced
from rlm_kernel.errors import ConfigError
from rlm_kernel.untrusted import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

KEY_ON_COMMAND_LINE = (
    "A key does not belong on a command line, where every user of the machine can read it: "
    "set it in the environment or in a .env file."
)


def backend_kwargs(
    backend: str, model: str | Sourced[str] | None, base_url: str | None, more: Sequence[str]
) -> dict[str, Any]:
    """The arguments of a backend.

    Raises:
        ConfigError: a pair without ``=``, a key on the command line, or no model although the backend needs one.
    """
    kwargs = dict(map(pair, more))
    if kwargs.keys() & SECRETS:
        raise ConfigError(KEY_ON_COMMAND_LINE)
    kwargs |= {"model_name": model} if model else {}
    kwargs |= {"base_url": base_url} if base_url else {}
    if "model_name" in registry.find(backend).needed and "model_name" not in kwargs:
        raise ConfigError(f"The backend {backend!r} needs a model: give --model, for example --model gpt-5-mini.")
    return kwargs


def recorded_model(known: Mapping[str, Any], log: Path) -> Sourced[str] | None:
    """The model of a recorded run. No other argument is used: a forged log could name a server.

    Args:
        known: the first line of the log.
        log: its path.
    """
    kwargs = known.get("backend_kwargs")
    model = kwargs.get("model_name") if isinstance(kwargs, dict) else None
    return Sourced(model, Source.RECORD, "model_name", log.name) if isinstance(model, str) and model else None


def fetch(backend: str, kwargs: Mapping[str, Any]) -> None:
    """Download the file of the local model, if the backend uses it.

    A run would download it too, but then its live view and the progress bar would overwrite each other.

    Raises:
        LMError: the download failed.
    """
    if backend == "llamacpp" and not kwargs.keys() & {"model_path", "base_url"}:
        from rlm_kernel.clients.llamacpp import weights

        weights.ensure()


def pair(text: str, option: str = "--backend-kwarg") -> tuple[str, Any]:
    """Split KEY=VALUE. The value is JSON or, if it is not valid JSON, text.

    Raises:
        ConfigError: there is no ``=``; the message names the option.
    """
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"{option} takes KEY=VALUE, for example max_retries=5, not {text!r}.")
    try:
        return name, json_text.loads(value)
    except ValueError:
        return name, value
