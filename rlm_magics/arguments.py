"""From settings and the options of a cell to the arguments of an `RLM`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from rlm_kernel.clients import options as clients_options
from rlm_kernel.clients import registry
from rlm_kernel.clients.arguments import check_arguments, example_of
from rlm_kernel.clients.base import LM
from rlm_kernel.engine.agent_tools import place_of
from rlm_kernel.engine.argument_checks import check_number
from rlm_kernel.errors import ConfigError
from rlm_kernel.provisioners.kernelspecs import check_name, environment
from rlm_kernel.trajectory.log.redaction import secrets_of
from rlm_magics.settings import BELONGING, check_no_secret, none_of

PLAIN = (
    "max_iterations", "max_depth", "max_budget", "max_timeout", "max_tokens", "max_errors", "max_calls", "persistent",
)  # fmt: skip
"""Settings that are arguments of an `RLM` as they are."""


def merge_settings(settings: Mapping[str, Any], options: Namespace) -> dict[str, Any]:
    """The settings, overridden by the options of a cell. A new backend or environment resets its settings."""
    given = {name: value for name, value in vars(options).items() if name in settings}
    chosen = {name: value for name, value in given.items() if value is not None and value is not False}
    known = dict(settings)
    for owner in BELONGING:
        if chosen.get(owner, known[owner]) != known[owner]:
            known |= none_of(owner)
    return {
        **known,
        **chosen,
        "backend_kwargs": {**known["backend_kwargs"], **pairs_of(options, "backend_kwarg")},
        "environment_kwargs": {**known["environment_kwargs"], **pairs_of(options, "environment_kwarg")},
    }


def rlm_arguments(named: Mapping[str, Any], namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an `RLM`.

    Args:
        named: the result of `merge_settings`.
        namespace: of the notebook; a backend may be the name of a variable there that holds an `LM`.

    Raises:
        ConfigError: no model is named, a backend is unknown, or a key is among the options.
    """
    check_no_secret({name: named[name] for name in ("backend_kwargs", "environment_kwargs")})
    return {
        **root_model(named, namespace),
        **sub_models(named, namespace),
        "environment": named["environment"],
        "environment_kwargs": {**named["environment_kwargs"], **({"attachable": True} if named["attachable"] else {})},
        "prompts": named["prompts"] or None,
        **{name: named[name] for name in PLAIN},
    }


def check_setting(named: Mapping[str, Any], name: str, namespace: Mapping[str, Any]) -> None:
    """Check a setting that was changed, as far as it can be checked before its companions are set.

    Args:
        named: all settings.
        name: the setting.
        namespace: as of `rlm_arguments`.

    Raises:
        ConfigError: there is no such backend, environment or option, or the value is wrong.
    """
    value = named[name]
    if name in ("backend", "sub_backend") and value and not is_lm(value, namespace):
        registry.find(value)
    elif name in ("backend_kwargs", "base_url") and value and not is_lm(named["backend"], namespace):
        row = registry.find(named["backend"])
        check_arguments(row, {**example_of(row), **({name: value} if name == "base_url" else value)})
    elif name == "environment":
        check_name(place_of(value, named["environment_kwargs"])[0])
    elif name == "environment_kwargs" and value:
        environment(*place_of(named["environment"], value))
    elif name in ("max_budget", "max_timeout"):
        check_number(name, value, None, none="no limit")


def root_model(named: Mapping[str, Any], namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an `RLM` that name its root model.

    Raises:
        ConfigError: no model is named, or the backend is unknown.
    """
    backend, kwargs = _model(named["backend"], named["model"], named["base_url"], named["backend_kwargs"], namespace)
    return {"backend": backend, "backend_kwargs": kwargs}


def sub_models(named: Mapping[str, Any], namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that name the model for sub-calls, if it differs. One of the same backend has the same endpoint.

    Raises:
        ConfigError: no model is named, or the backend is unknown.
    """
    if not (named["sub_backend"] or named["sub_model"]):
        return {"other_backends": [], "other_backend_kwargs": []}
    name = named["sub_backend"] or named["backend"]
    same = name == named["backend"]
    more = named["backend_kwargs"] if same else {}
    backend, kwargs = _model(name, named["sub_model"], named["base_url"] if same else "", more, namespace)
    return {"other_backends": [backend], "other_backend_kwargs": [kwargs]}


def fingerprint(wanted: Mapping[str, Any]) -> str:
    """A digest of the arguments of an RLM, and of the keys and endpoints that its models would find now.

    Args:
        wanted: the result of `rlm_arguments`, and more that matters.

    Raises:
        ConfigError: a `.env` file cannot be read.
    """
    backends = (wanted["backend"], *wanted["other_backends"])
    rows = [registry.find(backend) for backend in backends if isinstance(backend, str)]
    env = registry.environment_variables(pipes=False) if rows else {}
    found = [(env.get(row.key_variable or ""), env.get(row.base_url_variable or "")) for row in rows]
    others = sorted(secrets_of(env)) if any(row.others for row in rows) else []
    # An LM object is compared by identity: another one may have the same repr.
    own = [id(backend) for backend in backends if not isinstance(backend, str)]
    # Only a digest, because tracebacks show the values of variables.
    return sha256(repr((sorted(wanted.items()), found, others, own)).encode("utf-8", "surrogatepass")).hexdigest()


def fetch_weights(arguments: Mapping[str, Any]) -> None:
    """Download the file of the local model before the view of a run is drawn.

    Raises:
        LMError: the download failed.
    """
    backends = [arguments["backend"], *arguments["other_backends"]]
    options = [arguments["backend_kwargs"], *arguments["other_backend_kwargs"]]
    for backend, kwargs in zip(backends, options, strict=True):
        if isinstance(backend, str):
            clients_options.fetch(backend, kwargs or {})


def is_lm(backend: str, namespace: Mapping[str, Any]) -> bool:
    """Whether a backend is given by the name of a variable that holds an `LM`."""
    return backend not in registry.BACKENDS and callable(getattr(namespace.get(backend), "complete", None))


def _model(
    backend: str, model: str, base_url: str, more: Mapping[str, Any], namespace: Mapping[str, Any]
) -> tuple[str | LM, dict[str, Any] | None]:
    if is_lm(backend, namespace):
        lm: LM = namespace[backend]
        return lm, None
    row = registry.find(backend)
    named = {"model_name": model, "base_url": base_url}
    kwargs = {**more, **{name: value for name, value in named.items() if value}}
    if "model_name" in row.needed and "model_name" not in kwargs:
        raise ConfigError(
            f"No model is named for the backend {backend!r}: give --model, for example --model {row.example}, "
            f"or set it for all cells with %rlm model {row.example}."
        )
    return backend, kwargs


def pairs_of(options: Namespace, name: str) -> dict[str, Any]:
    """The values of a `--…-kwarg KEY=VALUE` option."""
    return dict(clients_options.pair(text, f"--{name.replace('_', '-')}") for text in getattr(options, name, []))
