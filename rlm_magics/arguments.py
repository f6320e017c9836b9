"""From settings and the options of a cell to the arguments of an `RLM`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from rlm_kernel.cli import models
from rlm_kernel.clients import registry
from rlm_kernel.clients.lm import LM
from rlm_kernel.errors import ConfigError
from rlm_magics.settings import check_no_secret

_OF_BACKEND = ("model", "base_url", "backend_kwargs", "sub_backend", "sub_model")
_PLAIN = ("max_iterations", "max_depth", "max_budget", "max_timeout", "max_tokens", "max_errors", "persistent")


def merged(settings: Mapping[str, Any], options: Namespace) -> dict[str, Any]:
    """The settings with what a cell says over them. Those of a backend or an environment belong to no other."""
    given = {name: value for name, value in vars(options).items() if name in settings}
    said = {name: value for name, value in given.items() if value is not None and value is not False}
    known = dict(settings)
    if said.get("backend", known["backend"]) != known["backend"]:
        known |= dict.fromkeys(_OF_BACKEND, "") | {"backend_kwargs": {}}
    if said.get("environment", known["environment"]) != known["environment"]:
        known["environment_kwargs"] = {}
    return {
        **known,
        **said,
        "backend_kwargs": {**known["backend_kwargs"], **_pairs(options, "backend_kwarg")},
        "environment_kwargs": {**known["environment_kwargs"], **_pairs(options, "environment_kwarg")},
    }


def rlm_arguments(named: Mapping[str, Any], namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an `RLM`.

    Args:
        named: what `merged` gives.
        namespace: of the notebook; a backend may be the name of a variable there that holds an `LM`.

    Raises:
        ConfigError: no model is named, a backend is unknown, or a key is among the options.
    """
    check_no_secret({name: named[name] for name in ("backend_kwargs", "environment_kwargs")})
    backend, kwargs = _model(named["backend"], named["model"], named["base_url"], named["backend_kwargs"], namespace)
    others = _others(named, namespace)
    return {
        "backend": backend,
        "backend_kwargs": kwargs,
        "environment": named["environment"],
        "environment_kwargs": {**named["environment_kwargs"], **({"attachable": True} if named["attachable"] else {})},
        "other_backends": [lm for lm, _ in others],
        "other_backend_kwargs": [kwargs for _, kwargs in others],
        "prompts": named["prompts"] or None,
        **{name: named[name] for name in _PLAIN},
    }


def overrides(options: Namespace, named: Mapping[str, Any], namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an `RLM` that goes on from a recorded run: only what a command says itself."""
    wanted = rlm_arguments(named, namespace) if options.backend or options.model else {}
    backends = ("backend", "backend_kwargs", "other_backends", "other_backend_kwargs")
    given = {name: wanted[name] for name in backends if wanted.get(name)}
    said = {name: getattr(options, name) for name in (*_PLAIN, "environment")}
    return given | {name: value for name, value in said.items() if value is not None}


def fetch_weights(arguments: Mapping[str, Any]) -> None:
    """Bring the local model's file to this machine before the view of a run is drawn.

    Raises:
        LMError: it cannot be had.
    """
    backends = [arguments["backend"], *arguments["other_backends"]]
    for backend, kwargs in zip(
        backends, [arguments["backend_kwargs"], *arguments["other_backend_kwargs"]], strict=True
    ):
        if isinstance(backend, str):
            models.fetch(backend, kwargs or {})


def _others(named: Mapping[str, Any], namespace: Mapping[str, Any]) -> Sequence[tuple[str | LM, dict[str, Any] | None]]:
    """The model of sub-calls, where it is another one. One of the same backend lives at the same endpoint."""
    if not (named["sub_backend"] or named["sub_model"]):
        return ()
    name = named["sub_backend"] or named["backend"]
    same = name == named["backend"]
    more = named["backend_kwargs"] if same else {}
    return (_model(name, named["sub_model"], named["base_url"] if same else "", more, namespace),)


def _model(
    backend: str, model: str, base_url: str, more: Mapping[str, Any], namespace: Mapping[str, Any]
) -> tuple[str | LM, dict[str, Any] | None]:
    own = namespace.get(backend)
    if backend not in registry.BACKENDS and callable(getattr(own, "complete", None)):
        lm: LM = own  # type: ignore[assignment]
        return lm, None
    row = registry.find(backend)
    named = {"model_name": model, "base_url": base_url}
    kwargs = {**more, **{name: value for name, value in named.items() if value}}
    if "model_name" in row.required and "model_name" not in kwargs:
        raise ConfigError(
            f"No model is named for the backend {backend!r}: give --model, for example --model {row.example}, "
            f"or set it for all cells with %rlm model {row.example}."
        )
    return backend, kwargs


def _pairs(options: Namespace, name: str) -> dict[str, Any]:
    """What `--…-kwarg KEY=VALUE` says."""
    return dict(models.pair(text, f"--{name.replace('_', '-')}") for text in getattr(options, name, []))
