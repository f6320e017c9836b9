"""Which models answer the cells of a notebook: from its parameters, its metadata, or environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rlm_kernel.clients.trust import Source, Sourced, each_from, value_of
from rlm_kernel.errors import ConfigError
from rlm_kernel.trajectory.log.notebook_metadata import assignments
from rlm_kernel.trajectory.log.redaction import without_secrets

if TYPE_CHECKING:
    from nbformat import NotebookNode

MODES = ("replay", "live")
LIMITS = ("max_budget", "max_timeout", "max_tokens", "max_calls", "max_depth")
NAMES = ("backend", "model", "base_url", "backend_kwargs", "sub_backend", "sub_model", *LIMITS)
"""The names of the parameters, and the keys of `metadata.rlm`."""
VARIABLES = {"backend": "RLM_BACKEND", "model": "RLM_MODEL"}

DEFAULT_BACKEND = "openai"

_NOTEBOOK = "the notebook"


def parameters_of(notebook: NotebookNode) -> dict[str, Any]:
    """The parameters that papermill was given, over the defaults in the cell with the tag `parameters`."""
    given = notebook.metadata.get("papermill", {}).get("parameters", {})
    tagged = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    return {**assignments(next((cell.source for cell in tagged), "")), **given}


def mode_of(parameters: Mapping[str, Any]) -> str:
    """Where the answers of a saved trajectory come from: ``replay`` (the record) or ``live`` (models, for the rest).

    Raises:
        ConfigError: it is neither.
    """
    mode = parameters.get("rlm_mode") or "replay"
    if mode not in MODES:
        raise ConfigError(f"rlm_mode must be one of {', '.join(map(repr, MODES))}, not {mode!r}.")
    return str(mode)


def arguments_of(
    parameters: Mapping[str, Any],
    in_metadata: Mapping[str, Any],
    environ: Mapping[str, str],
    given: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any] | None:
    """The arguments of an `RLM`, or None if no model is named: then questions have no answer.

    Args:
        parameters: have the first priority.
        in_metadata: `metadata.rlm` of the notebook, the second.
        environ: has the variables RLM_BACKEND and RLM_MODEL, the last.
        given: the parameters of this execution, which are the user's. All others are in the notebook, which is
            untrusted: no key is sent to a server that they name.

    Raises:
        ConfigError: a key among the parameters, which papermill writes into the notebook.
    """
    in_environment = {
        name: Sourced(environ.get(variable), Source.ENVIRONMENT, variable, "the environment")
        for name, variable in VARIABLES.items()
    }
    sources = (
        {**each_from(Source.RECORD, _NOTEBOOK, parameters), **each_from(Source.ARGUMENT, "papermill -p", given)},
        each_from(Source.RECORD, _NOTEBOOK, in_metadata),
        in_environment,
    )
    found = {name: setting for name in NAMES if (setting := _first(name, *sources)) is not None}
    return rlm_arguments(found) if found.keys() & {"backend", "model"} else None


def rlm_arguments(named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an `RLM` for values called as in `NAMES`; those of models keep their source."""
    values = {name: value_of(value) for name, value in named.items()}
    backend = values.get("backend", DEFAULT_BACKEND)
    more = values.get("backend_kwargs", {})
    if not isinstance(more, Mapping):
        raise ConfigError(f"backend_kwargs must be a dict, not {more!r}: give it with papermill -y or in metadata.rlm.")
    if without_secrets(more) != more:
        raise ConfigError(
            "An API key or another secret does not belong among the parameters, which are in the notebook that is "
            "written: set it in the environment or in a .env file."
        )
    kwargs = {**_each_like(named.get("backend_kwargs"), more), **_kwargs(named, "model", "base_url")}
    arguments = {"backend": backend, "backend_kwargs": kwargs, **{n: values[n] for n in LIMITS if n in values}}
    if "sub_backend" in values or "sub_model" in values:
        sub = values.get("sub_backend", backend)
        same = kwargs if sub == backend else {}
        sub_kwargs = same | ({"model_name": named["sub_model"]} if "sub_model" in named else {})
        arguments |= {"other_backends": [sub], "other_backend_kwargs": [sub_kwargs]}
    return arguments


def _each_like(whole: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a mapping, each with the source of the whole."""
    return each_from(whole.source, whole.place, values) if isinstance(whole, Sourced) else dict(values)


def _kwargs(named: Mapping[str, Any], model: str, url: str) -> dict[str, Any]:
    renamed = {"model_name": named.get(model), "base_url": named.get(url)}
    return {name: value for name, value in renamed.items() if value is not None}


def _first(name: str, *sources: Mapping[str, Sourced[Any]]) -> Sourced[Any] | None:
    """The first value of this name. Empty values and 0 are skipped, because papermill's command has no None."""
    settings = (source[name] for source in sources if name in source)
    return next((setting for setting in settings if setting.value not in (None, "", {}, 0)), None)
