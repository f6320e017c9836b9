"""What a recorded run would reach outside of its kernel if it ran again, and whether it may.

A record that this user made is used as it is. One of a stranger is not: what its options open of this machine is shown
and asked for, or else left out, and its code runs only behind a wall. Which options those are is said where they are
declared (`reaches_out` of a provisioner's traits, `SESSION_OPTIONS`), and which places have no wall as well (`reach` of
a provisioner).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlm_kernel.errors import RecordingError
from rlm_kernel.provisioners.kernelspecs import is_indispensable, reach_of_place, reaches_out
from rlm_kernel.text import clip, plain
from rlm_kernel.trajectory.log.reader import Recording, earlier_recordings

SHOWN_CHARACTERS = 200
"""Of the value of an option."""

HARMLESS = frozenset({
    "model_name", "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "seed", "stop",
    "presence_penalty", "frequency_penalty", "reasoning_effort",
})  # fmt: skip
"""Options of a model that say what is asked, and not where or with what."""

OF_MODELS = {
    "backend_kwargs": "backend", "other_backend_kwargs": "other_backends", "sampling_args": "", "sub_sampling_args": "",
}  # fmt: skip
"""Arguments that hold options of models, and the argument that, when it is given again, leaves them unused."""

Trust = bool | Callable[[str], bool]
"""Whether a stranger's record may do what it says, or who is asked: it gets the question, of several lines."""


@dataclass(frozen=True, slots=True)
class Reach:
    """One thing that a record opens.

    Attributes:
        where: the argument that says so.
        name: of the option in it; empty: the argument itself.
        value: of the option.
        why: what it opens, where its name does not say that.
        needed: whether the run cannot be repeated without it.
    """

    where: str
    name: str
    value: Any
    why: str = ""
    needed: bool = False

    def __str__(self) -> str:
        said = f"{self.where}[{self.name!r}]" if self.name else self.where
        return plain(f"{said}: {clip(repr(self.value), SHOWN_CHARACTERS)}" + (f" ({self.why})" if self.why else ""))


@dataclass(frozen=True, slots=True)
class Use:
    """What is done with a record.

    Attributes:
        environment: where its cells run; None: where they ran.
        environment_kwargs: its options, where somebody gives them; None: the recorded ones, where no place is named.
        models: whether models are asked for what is not on record.
        given: arguments of the `RLM` that are given again.
        code: what runs that is not on record, in words: cells of a notebook that were edited, say.
    """

    environment: str | None = None
    environment_kwargs: Mapping[str, Any] | None = None
    models: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""


def admitted(recording: Recording, use: Use, trust: Trust = False) -> Recording:
    """A record as it may be used: as it is when this user made it or trusts it, else without what it opens.

    A warning names what is left out.

    Raises:
        RecordingError: it cannot be used without something that it opens; the message says what to do.
    """
    flaw = flaw_of(recording)
    found = tuple(reaches(recording, use)) if flaw else tuple(_of_place(recording, use)) if use.code else ()
    if not found:
        return recording
    why = f"it is not a record of yours: {flaw}" if flaw else f"{use.code}, and nobody can say who wrote that"
    if trust is True or (callable(trust) and trust(_question(recording, found, why))):
        return recording
    if needed := [reach for reach in found if reach.needed]:
        raise RecordingError(
            f"{recording.path.name} would use {_listed(needed)}, and {why}. Look at it first (rlm show), then allow "
            "it with --trust (trust=True; papermill -p rlm_trust True), or run its cells behind a wall, in the usual "
            "image: --environment docker (environment='docker')."
            + " `rlm trust` makes it a record of yours."
            * bool(flaw)
        )
    warnings.warn(
        f"{recording.path.name} is used without {_listed(found)}: {why}. To allow that: --trust (trust=True; papermill "
        "-p rlm_trust True).",
        RuntimeWarning,
        stacklevel=3,
    )
    return _without(recording, found)


def flaw_of(recording: Recording) -> str | None:
    """Why a record, or one of those that it goes on from in the same kernel, is not of this user; None: all are."""
    return next((one.flaw for one in (recording, *earlier_recordings(recording)) if one.flaw is not None), None)


def reaches(recording: Recording, use: Use) -> Iterator[Reach]:
    """What a record opens when it is used so.

    Raises:
        ConfigError: there is no such environment.
    """
    yield from _of_place(recording, use)
    if use.environment is None and use.environment_kwargs is None:
        name = _environment(recording)
        for option, value in _object(recording.metadata, "environment_kwargs").items():
            if reaches_out(name, option, value):
                yield Reach("environment_kwargs", option, value, needed=is_indispensable(name, option))
    if use.models:
        yield from _of_models(recording, use.given)


def _of_place(recording: Recording, use: Use) -> Iterator[Reach]:
    name = use.environment or _environment(recording)
    if why := reach_of_place(name):
        yield Reach("environment", "", name, why, needed=True)


def _of_models(recording: Recording, given: Mapping[str, Any]) -> Iterator[Reach]:
    configuration = _object(recording.metadata, "configuration")
    for argument, owner in OF_MODELS.items():
        if argument not in given and owner not in given:
            for options in _option_sets(configuration.get(argument)):
                for name, value in options.items():
                    if name not in HARMLESS and value is not None:
                        yield Reach(argument, name, value)


def _environment(recording: Recording) -> str:
    started = recording.trajectory.started
    if started is None:
        raise RecordingError(f"{recording.path} does not tell how the run began.")
    return started.environment


def _object(known: Mapping[str, Any], name: str) -> dict[str, Any]:
    held = known.get(name)
    return held if isinstance(held, dict) else {}


def _option_sets(value: Any) -> list[dict[str, Any]]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]


def _without(recording: Recording, found: Sequence[Reach]) -> Recording:
    """The record without these options, in both places where its first line holds them."""
    dropped = {(reach.where, reach.name) for reach in found}

    def kept(argument: str, value: Any) -> Any:
        if isinstance(value, list):
            return [kept(argument, one) for one in value]
        if isinstance(value, dict):
            return {name: held for name, held in value.items() if (argument, name) not in dropped}
        return value

    def cleaned(known: dict[str, Any]) -> dict[str, Any]:
        return {name: kept(name, value) if name in arguments else value for name, value in known.items()}

    arguments = {reach.where for reach in found}
    metadata = cleaned(recording.metadata)
    if isinstance(metadata.get("configuration"), dict):
        metadata["configuration"] = cleaned(metadata["configuration"])
    return replace(recording, metadata=metadata)


def _listed(found: Sequence[Reach]) -> str:
    return "; ".join(map(str, found))


def _question(recording: Recording, found: Sequence[Reach], why: str) -> str:
    lines = "".join(f"  {reach}\n" for reach in found)
    return f"{plain(recording.path.name)} would use\n{lines}and {plain(why)}. Allow it?"
