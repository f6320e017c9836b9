"""Check the arguments of an `RLM`, and turn names into the parts they stand for.

Everything wrong is a `ConfigError` that names what is allowed, before anything starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlm_kernel.clients import registry
from rlm_kernel.clients.lm import LM
from rlm_kernel.errors import ConfigError
from rlm_kernel.plan import Models
from rlm_kernel.prompt_profiles import PROFILES
from rlm_kernel.prompts import PromptProfile


def models_of(
    backend: str | LM,
    kwargs: Mapping[str, Any] | None,
    others: Sequence[str | LM] | None,
    other_kwargs: Sequence[Mapping[str, Any] | None] | None,
) -> Models:
    """The models of a run, from the names and arguments of their backends or as they were handed over."""
    others, other_kwargs = list(others or ()), list(other_kwargs or ())
    if not other_kwargs:
        other_kwargs = [None] * len(others)
    if len(others) != len(other_kwargs):
        raise ConfigError(
            f"other_backends has {len(others)} entries and other_backend_kwargs {len(other_kwargs)}: "
            "give one dict for each backend, in the same order."
        )
    env = registry.environment_variables()
    return Models(
        _model(backend, kwargs, env),
        tuple(_model(o, k, env) for o, k in zip(others, other_kwargs, strict=True)),
    )


def _model(backend: str | LM, kwargs: Mapping[str, Any] | None, env: Mapping[str, str]) -> LM:
    if isinstance(backend, str):
        return registry.build(backend, kwargs, env)
    if kwargs:
        raise ConfigError("backend_kwargs goes with the name of a backend; an LM object is used as it is.")
    if not callable(getattr(backend, "complete", None)):
        raise ConfigError(f"backend must be the name of a backend or an LM, not {type(backend).__name__}.")
    return backend


def profile_of(prompts: str | PromptProfile | None, backend: str | LM) -> PromptProfile:
    """The prompts asked for, else those that suit the backend; an `LM` of the user's is taken for a large one."""
    if isinstance(prompts, PromptProfile):
        return prompts
    if prompts is None:
        prompts = registry.find(backend).profile if isinstance(backend, str) else "large"
    if prompts not in PROFILES:
        raise ConfigError(
            f"prompts must be one of {', '.join(map(repr, PROFILES))} or a PromptProfile, not {prompts!r}."
        )
    return PROFILES[prompts]


def check_numbers(*, threshold: float, **counts: int) -> None:
    """Check what counts things."""
    for name, value in counts.items():
        least = 0 if name in ("depth", "max_depth") else 1
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{name} must be a whole number, {least} or more, not {value!r}.")
    if not 0 < threshold <= 1:
        raise ConfigError(f"compaction_threshold_pct must be a share between 0 and 1, not {threshold!r}.")


def check_limits(budget: float | None, timeout: float | None, tokens: int | None, errors: int | None) -> None:
    """Check the limits of a run; None is no limit."""
    for name, value, kinds in (
        ("max_budget", budget, (int, float)),
        ("max_timeout", timeout, (int, float)),
        ("max_tokens", tokens, (int,)),
        ("max_errors", errors, (int,)),
    ):
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool) or not value > 0):
            wanted = "a number above 0" if float in kinds else "a whole number, 1 or more"
            raise ConfigError(f"{name} must be {wanted} (None: no limit), not {value!r}.")


def check_prompt(prompt: object) -> None:
    """Check that a prompt is one of the documented kinds."""
    if not isinstance(prompt, str | dict | list):
        raise ConfigError(
            f"prompt must be str, dict or list, not {type(prompt).__name__}: convert it first, "
            "a DataFrame with df.to_dict('records'), say."
        )
