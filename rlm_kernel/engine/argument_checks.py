"""Check the arguments of an `RLM`, and build its models, prompts and schema from them.

A wrong argument is a `ConfigError` that names what is allowed. It is raised before anything starts.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any, cast

from rlm_kernel import inputs
from rlm_kernel.clients import registry, trust
from rlm_kernel.clients.base import LM, BaseLM, as_base_lm
from rlm_kernel.engine.billing import COST_COMES_WITH_THE_REPLY
from rlm_kernel.engine.config import Models, RunConfig
from rlm_kernel.engine.kernel_slots import check_max_kernels
from rlm_kernel.engine.tools import server_secrets
from rlm_kernel.errors import ConfigError
from rlm_kernel.prompts import LARGE, PROFILES
from rlm_kernel.prompts.profile import PromptProfile, filled_in
from rlm_kernel.schema.answer_schema import Schema
from rlm_kernel.trajectory.log.redaction import named_secrets
from rlm_kernel.types import Foreign, Input, Shaped, TextFile
from rlm_kernel.values import convert, how_to_give, is_context, refusal

_COUNTS = {"depth": 0, "max_depth": 0, "max_iterations": 1, "max_concurrent_queries": 1, "max_concurrent_subcalls": 1}
"""Numbers of a configuration, each with the smallest that is allowed."""

_MEMBERS = ("backend", "model", "context_window", "complete")


def models_of(
    backends: Sequence[str | LM],
    kwargs: Sequence[Mapping[str, Any] | None],
    sampling: Mapping[str, Any] | None = None,
    sub_sampling: Mapping[str, Any] | None = None,
) -> tuple[Models, tuple[BaseLM, ...]]:
    """The models of a run, and those of them that were built here.

    Args:
        backends: names of backends, or `LM` objects; the root first, then the `other_backends`.
        kwargs: the arguments of each, in the same order; the list may end after the first.
        sampling: further fields of the root's requests.
        sub_sampling: the same for sub-calls: for the first of the `other_backends`, else a second client of the root.
    """
    backends, kwargs = list(backends), list(kwargs)
    if len(kwargs) == 1:
        kwargs += [None] * (len(backends) - 1)
    if len(backends) != len(kwargs):
        raise ConfigError(
            f"other_backends has {len(backends) - 1} entries and other_backend_kwargs {len(kwargs) - 1}: "
            "give one dict for each backend, in the same order."
        )
    kwargs[0] = _with_sampling(backends[0], kwargs[0], sampling, "sampling_args")
    if sub_sampling:
        if len(backends) == 1:
            backends, kwargs = backends * 2, kwargs * 2
        kwargs[1] = _with_sampling(backends[1], kwargs[1], sub_sampling, "sub_sampling_args")
    env = registry.environment_variables() if any(isinstance(b, str) for b in backends) else {}
    root, *others = made = [_model(b, k, env) for b, k in zip(backends, kwargs, strict=True)]
    return Models(root, tuple(others)), tuple(lm for lm, b in zip(made, backends, strict=True) if isinstance(b, str))


def _model(backend: str | LM, kwargs: Mapping[str, Any] | None, env: Mapping[str, str]) -> BaseLM:
    if isinstance(backend, str):
        return registry.build(backend, kwargs, env)
    if kwargs:
        raise ConfigError("backend_kwargs belongs to a backend that is given by name: leave it out with an LM object.")
    if not callable(getattr(backend, "complete", None)):
        raise ConfigError(f"backend must be the name of a backend or an LM, not {type(backend).__name__}.")
    if missing := [name for name in _MEMBERS if not hasattr(backend, name)]:
        raise ConfigError(f"{type(backend).__name__} lacks {', '.join(missing)}: an LM has {', '.join(_MEMBERS)}.")
    return as_base_lm(backend)


def _with_sampling(
    backend: str | LM, kwargs: Mapping[str, Any] | None, sampling: Mapping[str, Any] | None, argument: str
) -> Mapping[str, Any] | None:
    """The arguments of a backend with further fields for its requests; the new ones win."""
    if not trust.value_of(sampling):
        return kwargs
    if not isinstance(backend, str):
        raise ConfigError(f"{argument} goes with the name of a backend: leave it out with an LM object.")
    given = dict(kwargs or {})
    return {**given, "sampling_args": trust.merge("sampling_args", given.get("sampling_args"), sampling)}


def profile_of(prompts: str | PromptProfile | None, backend: str | LM) -> PromptProfile:
    """The given prompts, else those for the backend; for a user's own `LM`, those for a large model."""
    if isinstance(prompts, PromptProfile):
        return prompts
    if prompts is None:
        profile = PROFILES[registry.find(backend).profile] if isinstance(backend, str) else LARGE
        return replace(profile, adapts=profile is LARGE)
    if prompts not in PROFILES:
        raise ConfigError(
            f"prompts must be one of {', '.join(map(repr, PROFILES))} or a PromptProfile, not {prompts!r}."
        )
    return PROFILES[prompts]


def check_config(config: RunConfig, arguments: Mapping[str, Any]) -> None:
    """Check the numbers of a configuration, its texts, and the functions among the arguments of an `RLM`."""
    _check_functions({name: value for name, value in arguments.items() if name.startswith("on_")})
    threshold = arguments["compaction_threshold_pct"]
    for name, least in _COUNTS.items():
        check_number(name, getattr(config, name), least)
    check_number("max_kernels", config.max_kernels, none="by the free memory")
    for name, least in (("max_tokens", 1), ("max_errors", 1), ("max_calls", 0)):
        check_number(name, getattr(config.limits, name), least, none="no limit")
    for name in ("max_budget", "max_timeout"):
        check_number(name, getattr(config.limits, name), None, none="no limit")
    check_max_kernels(config.max_kernels, config.levels, config.environment.pool)
    if not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        raise ConfigError(f"compaction_threshold_pct must be a share between 0 and 1, not {threshold!r}.")
    if not isinstance(config.orchestrator, bool | None):
        raise ConfigError(f"orchestrator must be True, False or None, not {config.orchestrator!r}.")
    for name, text in (("custom_system_prompt", config.system_prompt), ("user_prologue", config.prologue)):
        if not isinstance(text, str | None):
            raise ConfigError(f"{name} must be str or None, not {type(text).__name__}.")
    if config.system_prompt is not None:
        filled_in(config.system_prompt, "")
    if config.limits.max_budget is not None:
        _warn_of_unknown_prices(config.models)


def _check_functions(callbacks: Mapping[str, Any]) -> None:
    """Check that these arguments are functions or None."""
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise ConfigError(f"{name} must be a function or None, not {type(callback).__name__}.")


def check_number(name: str, value: Any, least: int | None = 1, none: str | None = None) -> None:
    """Check one number.

    Args:
        name: the argument.
        value: the given value.
        least: the smallest whole number; None: any number above 0.
        none: the meaning of None; None: it is not allowed.
    """
    if value is None and none is not None:
        return
    is_number = isinstance(value, int if least is not None else int | float) and not isinstance(value, bool)
    if not is_number or not (value > 0 if least is None else value >= least):
        wanted = "a number above 0" if least is None else f"a whole number, {least} or more"
        allowed = "" if none is None else f" (None: {none})"
        raise ConfigError(f"{name} must be {wanted}{allowed}, not {value!r}.")


def _warn_of_unknown_prices(models: Models) -> None:
    """Warn that a budget does not count a model. For a user's own `LM`, the first run emits a notice."""
    for lm in {lm.model: lm for lm in (models.root, *models.others)}.values():
        if lm.backend not in COST_COMES_WITH_THE_REPLY and not lm.price_known():
            warnings.warn(
                f"The price of {lm.model} is unknown, so max_budget does not count it: give US dollars per million "
                "tokens, backend_kwargs={..., 'prices': {'input': 1.25, 'output': 10}}.",
                stacklevel=4,
            )


def check_logger(logger: object) -> None:
    """Check that a logger can keep runs, or takes their turns."""
    if inspect.iscoroutinefunction(getattr(logger, "log", None)):
        raise ConfigError(
            f"The log(iteration) of the logger {type(logger).__name__} is an `async def`, and nothing would await it: "
            "make it a `def`. It is called in a thread, where asyncio.run(...) works."
        )
    if logger is not None and not any(callable(getattr(logger, name, None)) for name in ("start", "log")):
        raise ConfigError(
            f"logger must be an RLMLogger, from rlm.logger, or an object with log(iteration), not "
            f"{type(logger).__name__}."
        )


def check_logger_of_many(logger: object, count: int) -> None:
    """Check that a user's logger can take the turns of so many runs at a time.

    Raises:
        ConfigError: it keeps one run.
    """
    keeps = next((name for name in ("clear_iterations", "get_trajectory") if callable(getattr(logger, name, None))), "")
    if keeps and count > 1 and not hasattr(logger, "start"):
        raise ConfigError(
            f"The logger {type(logger).__name__} keeps one run at a time ({keeps}), and those of {count} would "
            "come mixed: give max_concurrent=1, or an RLMLogger, which keeps each run by itself."
        )


def keys_of(config: RunConfig) -> set[str]:
    """The keys of the models, and the values of tools with names of secrets. They must not be in a log."""
    models = (config.models.root, *config.models.others)
    given = named_secrets([dict(lm.env or {}) for lm in models])
    values = [{tool.name: tool.content} for tool in (*config.tools, *config.sub_tools) if tool.kind == "value"]
    of_servers = server_secrets((*config.tools, *config.sub_tools))
    return {lm.api_key for lm in models if isinstance(lm.api_key, str)} | given | named_secrets(values) | of_servers


def schema_of(given: Any) -> Schema | None:
    """The schema in `response_schema`, or None."""
    try:
        return None if given is None else Schema.of(given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"response_schema: {error}.") from error


def opened(prompt: Input | PurePath | Shaped, config: RunConfig, option: str = "prompt", **limits: int) -> Input:
    """The input of a run as it travels; see `inputs.open_text` for the last arguments.

    Takes seconds for a file of 1 GB, which the kernel reads itself if it sees it.

    Raises:
        ConfigError: the file cannot be read, or a part of the value cannot be sent to a kernel.
    """
    if not isinstance(prompt, PurePath):
        return cast("Input", convert(prompt) if is_context(prompt) else prompt)
    is_plain = config.depth >= config.max_depth
    return inputs.open_text(prompt, option, in_kernel=not is_plain and config.environment.sees_host_files, **limits)


def check_prompt(prompt: object, question: object = None) -> None:
    """Check the types of a prompt and a `root_prompt`."""
    if not isinstance(prompt, str | dict | list | bytes | TextFile | Foreign):
        raise ConfigError(
            refusal(prompt, "prompt")
            or f"prompt must be str, dict, list, bytes, a table or a Path, not {type(prompt).__name__}: "
            f"{how_to_give(prompt)}."
        )
    if not isinstance(question, str | None):
        raise ConfigError(f"root_prompt must be str or None, not {type(question).__name__}: it is the question.")
