"""The arguments of a run that `%rlm resume` continues, and its new cost."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlm_kernel.clients import options as clients_options
from rlm_kernel.engine.recorded_config import without_hidden
from rlm_kernel.errors import ConfigError
from rlm_kernel.trajectory.log.reader import Recording
from rlm_kernel.trajectory.tree import sum_usage
from rlm_kernel.types import ModelUsageSummary, Usage, UsageSummary
from rlm_magics import arguments
from rlm_magics.result import RLMResult
from rlm_magics.settings import check_no_secret

_ROOT = ("backend", "model", "base_url", "backend_kwarg")
_SUB = ("sub_backend", "sub_model")
_PLAIN = (*arguments.PLAIN, "environment", "prompts")


def with_recorded_model(options: Namespace, recorded: Mapping[str, Any], log: Path) -> Namespace:
    """The options, completed with the recorded backend, and on the same backend with the recorded model.

    No other argument of the backend is used: a forged log could name a server.

    Args:
        options: of the command.
        recorded: the first line of the log.
        log: its path.
    """
    backend = recorded.get("backend")
    if not (_any_given(options, *_ROOT, *_SUB) and isinstance(backend, str) and options.backend in (None, backend)):
        return options
    known = {"backend": backend, "model": options.model or clients_options.recorded_model(recorded, log)}
    return Namespace(**{**vars(options), **known})


def with_objects(options: Namespace, named: Mapping[str, Any], namespace: Mapping[str, Any]) -> Namespace:
    """The options, completed with the models of the latest run that are objects, which no log holds.

    Args:
        options: of the command.
        named: the settings and options of the latest run.
        namespace: of the notebook.
    """
    own = {name: named[name] for name in ("backend", "sub_backend") if arguments.is_lm(named[name], namespace)}
    return Namespace(**{**vars(options), **{name: getattr(options, name) or model for name, model in own.items()}})


def overrides(
    options: Namespace, named: Mapping[str, Any], recorded: Mapping[str, Any], namespace: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of an `RLM` that the command changes in a recorded run.

    Args:
        options: of the command.
        named: the merged settings, see `merge_settings` and `with_recorded_model`.
        recorded: the first line of the log.
        namespace: of the notebook.

    Raises:
        ConfigError: no model is named, a backend is unknown, a key is among the options, or they go over a record that
            lacks a secret.
    """
    check_no_secret({name: named[name] for name in ("backend_kwargs", "environment_kwargs")})
    given = {name: getattr(options, name) for name in _PLAIN}
    if _any_given(options, *_ROOT):
        given |= arguments.root_model(named, namespace)
    if _any_given(options, *_SUB):
        given |= arguments.sub_models(named, namespace)
    if _any_given(options, "environment_kwarg", "attachable"):
        given["environment_kwargs"] = _environment_kwargs(options, recorded)
    return {name: value for name, value in given.items() if value is not None}


def newly_spent(done: RLMResult, known: Recording, at: int | None) -> UsageSummary:
    """The usage of a resumed run without the recorded calls, which its result counts too.

    Args:
        done: its result.
        known: the recorded run.
        at: the last iteration that was kept; None: all.
    """
    before = sum_usage(_recorded_usage(known, at, done.root_model)).model_usage_summaries
    after = done.usage.model_usage_summaries
    new = {model: _minus(sums, before.get(model, ModelUsageSummary(total_cost=0.0))) for model, sums in after.items()}
    return UsageSummary({model: sums for model, sums in new.items() if sums.total_calls > 0})


def _any_given(options: Namespace, *names: str) -> bool:
    return any(getattr(options, name) for name in names)


def _environment_kwargs(options: Namespace, recorded: Mapping[str, Any]) -> dict[str, Any] | None:
    """The recorded options, overridden by those of the command. A new environment uses no recorded option."""
    chosen = arguments.pairs_of(options, "environment_kwarg")
    before = (recorded.get("environment_kwargs") or {}) if options.environment is None else {}
    hidden = sorted(name for name, held in before.items() if name not in chosen and held != without_hidden(held))
    if hidden and not chosen:
        return None  # then the resumed run reports which options are missing
    if hidden:
        raise ConfigError(f"{', '.join(hidden)} held a secret, which is in no log: give the whole environment with -e.")
    return {**without_hidden(before), **chosen, **({"attachable": True} if options.attachable else {})}


def _recorded_usage(known: Recording, at: int | None, root: str) -> Iterator[tuple[str, Usage]]:
    """The recorded calls. Replies of the root model count for the new root model."""
    run = known.trajectory
    for replied in run.replies:
        if at is None or replied.iteration <= at:
            yield root, replied.reply.usage
    yield from run.setup.spending()
    for turn in run.turns:
        if at is None or turn.iteration <= at:
            for cell in turn.cells:
                yield from cell.spending()


def _minus(whole: ModelUsageSummary, part: ModelUsageSummary) -> ModelUsageSummary:
    """The difference; 0 for a run that ended before it had replayed the record."""
    unknown = whole.total_cost is None or part.total_cost is None
    return ModelUsageSummary(
        whole.total_calls - part.total_calls,
        max(0, whole.total_input_tokens - part.total_input_tokens),
        max(0, whole.total_output_tokens - part.total_output_tokens),
        None if unknown else max(0.0, (whole.total_cost or 0.0) - (part.total_cost or 0.0)),
        max(0, whole.total_cached_tokens - part.total_cached_tokens),
    )
