"""What a recorded run would access outside of its kernel if it ran again, and whether that is allowed.

A record of this user is used without a question. For a stranger's record, the options that give access to this machine
are shown and need permission; without it they are left out, and the code runs only in an isolated environment. Such
options are marked where they are declared (`reaches_out` of a provisioner's traits, `SESSION_OPTIONS`), and so are
environments without isolation (`reach` of a provisioner).
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
"""Of the value of an option in a message."""

HARMLESS = frozenset({
    "model_name", "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "seed", "stop",
    "presence_penalty", "frequency_penalty", "reasoning_effort",
})  # fmt: skip
"""Options of a model that select neither a server nor a key."""

OF_MODELS = {
    "backend_kwargs": "backend", "other_backend_kwargs": "other_backends", "sampling_args": "", "sub_sampling_args": "",
}  # fmt: skip
"""Arguments with options of models, each with the argument that replaces them if it is given again."""

Trust = bool | Callable[[str], bool]
"""Whether a stranger's record is trusted, or a function that answers this question, a text of several lines."""


@dataclass(frozen=True, slots=True)
class Reach:
    """One thing outside of the kernel that a record gives access to.

    Attributes:
        where: the argument that contains it.
        name: of the option in it; empty: the argument itself.
        value: of the option.
        why: what it gives access to, if its name does not say that.
        needed: whether the run cannot be repeated without it.
    """

    where: str
    name: str
    value: Any
    why: str = ""
    needed: bool = False

    def __str__(self) -> str:
        option = f"{self.where}[{self.name!r}]" if self.name else self.where
        return plain(f"{option}: {clip(repr(self.value), SHOWN_CHARACTERS)}" + (f" ({self.why})" if self.why else ""))


@dataclass(frozen=True, slots=True)
class Use:
    """What is done with a record.

    Attributes:
        environment: where its cells run; None: where they ran.
        environment_kwargs: its options; None: the recorded ones, if `environment` is None.
        models: whether models are called for answers that are not in the record.
        given: arguments of the `RLM` that are given again.
        code: a description of code that is not in the record, such as edited cells of a notebook; empty: none.
    """

    environment: str | None = None
    environment_kwargs: Mapping[str, Any] | None = None
    models: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""


def admitted(recording: Recording, use: Use, trust: Trust = False) -> Recording:
    """The record if this user made it or trusts it, else the record without the options that give access.

    A warning names what is left out.

    Raises:
        RecordingError: it cannot be used without such an option; the message says what to do.
    """
    flaw = flaw_of(recording)
    found = tuple(reaches(recording, use)) if flaw else tuple(_of_place(recording, use)) if use.code else ()
    if not found:
        return recording
    why = f"you did not make this record: {flaw}" if flaw else f"{use.code}: such cells are not in your signed record"
    look = "Look at it first (rlm show)" if flaw else "Look at the notebook first"
    if trust is True or (callable(trust) and trust(_question(recording, found, why))):
        return recording
    if needed := [reach for reach in found if reach.needed]:
        raise RecordingError(
            f"{recording.path.name} would use {_listed(needed)}, and {why}. {look}, then allow it "
            "with --trust (trust=True; papermill -p rlm_trust True), or run its cells isolated, in the default "
            "image: --environment docker (environment='docker')." + " `rlm trust` signs it as yours." * bool(flaw)
        )
    warnings.warn(
        f"{recording.path.name} is used without {_listed(found)}: {why}. To allow that: --trust (trust=True; papermill "
        "-p rlm_trust True).",
        RuntimeWarning,
        stacklevel=3,
    )
    return _without(recording, found)


def flaw_of(recording: Recording) -> str | None:
    """Why this user did not make a record, or one of the earlier records of the same kernel; None: the user did."""
    return next((one.flaw for one in (recording, *earlier_recordings(recording)) if one.flaw is not None), None)


def reaches(recording: Recording, use: Use) -> Iterator[Reach]:
    """What a record gives access to if it is used in this way.

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
        raise RecordingError(f"{recording.path} holds no start of a run.")
    return started.environment


def _object(known: Mapping[str, Any], name: str) -> dict[str, Any]:
    held = known.get(name)
    return held if isinstance(held, dict) else {}


def _option_sets(value: Any) -> list[dict[str, Any]]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]


def _without(recording: Recording, found: Sequence[Reach]) -> Recording:
    """The record without these options. Its first line holds them in two places."""
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
