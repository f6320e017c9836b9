"""The arguments of an `RLM` as plain data for its log, and back for a run that resumes it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from rlm_kernel.clients.trust import Source, Sourced, addresses_elsewhere, each_from, value_of
from rlm_kernel.engine.tools import tools_of
from rlm_kernel.errors import RecordingError
from rlm_kernel.installation import update_command
from rlm_kernel.mcp.server import RecordedServer
from rlm_kernel.trajectory.log.reader import Recording
from rlm_kernel.trajectory.log.redaction import HIDDEN, without_secrets_of_tools

NOT_RECORDED = frozenset({
    "self", "logger", "verbose", "custom_tools", "tools", "on_cell", "on_tool",
    "approve",
    "on_iteration_start", "on_iteration_complete", "on_subcall_start", "on_subcall_complete",
})  # fmt: skip
"""Arguments that do not change the run. The tools are recorded separately."""

_OBJECT = "object"
_BELONGING = {
    "backend": "backend_kwargs",
    "other_backends": "other_backend_kwargs",
    "environment": "environment_kwargs",  # the options belong to the environment
}
"""If the first is given again, the recorded value of the second is not used."""
_MODELS = ("backend_kwargs", "other_backend_kwargs", "sampling_args", "sub_sampling_args")


class Unpicklable:
    """A class whose objects hold connections, which belong to one process."""

    def __reduce__(self) -> NoReturn:
        """Refuse.

        Raises:
            TypeError: always; the message says what to do.
        """
        kind = type(self).__name__
        raise TypeError(
            f"{kind} cannot be pickled or copied, because it holds connections: pass its arguments instead, and "
            f"make the {kind} in the process that uses it."
        )


def record_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as plain data. An object, such as a user's own model, becomes the name of its class."""
    plain = {name: _plain(value) for name, value in arguments.items() if name not in NOT_RECORDED}
    sub_tools = arguments.get("custom_sub_tools")
    if sub_tools is not None:
        known = (tool.to_record() for tool in tools_of(sub_tools, "custom_sub_tools"))
        plain["custom_sub_tools"] = list(without_secrets_of_tools(known))
    return plain


def arguments_of(
    recording: Recording, overrides: Mapping[str, Any], rlm: type, source: Source | None = None
) -> dict[str, Any]:
    """The arguments of an `RLM` that resumes a run. Those of its models are `Sourced`.

    Args:
        recording: the run.
        overrides: arguments that replace recorded ones.
        rlm: the class that is created with them.
        source: who wrote the record; None: the user if it has the user's signature, else a stranger.

    Raises:
        RecordingError: an argument was an object and is not given again; the log names a server that would get
            a key; a later version wrote it; or another tool did.
    """
    if source is None:
        source = Source.RECORD if recording.flaw else Source.ARGUMENT
    known = recording.metadata.get("configuration")
    if not isinstance(known, dict):
        raise RecordingError(
            f"{recording.path} does not hold the arguments of its RLM: it was written by another tool."
        )
    arguments = {name: value for name, value in known.items() if name not in overrides}
    _check_names(rlm, recording, arguments)
    for name, belonging in _BELONGING.items():
        if name in overrides and belonging not in overrides:
            arguments.pop(belonging, None)
    if not source.is_users:
        _check_servers(recording, arguments)
    missing = sorted(name for name, value in arguments.items() if _holds_object(value))
    if missing:
        names = ", ".join(missing)
        raise RecordingError(
            f"{names} held objects, which a log cannot store: give them again (`rlm`: --backend, --model)."
        )
    if isinstance(sub_tools := arguments.get("custom_sub_tools"), list):
        arguments["custom_sub_tools"] = _tools(sub_tools)
    started = recording.trajectory.started
    if started is not None and started.tools and "custom_tools" not in overrides:
        arguments["custom_tools"] = _tools(started.tools)
    arguments = {name: without_hidden(value) for name, value in arguments.items()}
    return {**_with_source(arguments, source, recording.path.name), **overrides}


def _with_source(arguments: Mapping[str, Any], source: Source, place: str) -> dict[str, Any]:
    """The arguments, those of models with their source: a record cannot choose the server that gets a key."""
    sourced = dict(arguments)
    for name in _MODELS:
        value = arguments.get(name)
        if isinstance(value, list):
            sourced[name] = [each_from(source, place, held) if isinstance(held, dict) else held for held in value]
        elif isinstance(value, dict) and name == "backend_kwargs":
            sourced[name] = each_from(source, place, value)
        elif value:
            sourced[name] = Sourced(value, source, name, place)
    return sourced


def _check_names(rlm: type, recording: Recording, names: Iterable[str]) -> None:
    """Refuse arguments that this version does not have: a later version wrote the log."""
    if unknown := sorted(set(names) - set(_parameters(rlm))):
        raise RecordingError(
            f"{recording.path.name} names arguments that this version of rlm-kernel does not have: "
            f"{', '.join(unknown)}. Update it: {update_command()}"
        )


def _parameters(kind: type) -> Iterator[str]:
    """The names of the arguments of a class. `**kwargs` stands for the arguments of its base."""
    for base in kind.__mro__:
        if "__init__" in vars(base):
            own = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]  # without `self`
            yield from (parameter.name for parameter in own)
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own):
                return


def _check_servers(recording: Recording, arguments: Mapping[str, Any]) -> None:
    """Refuse servers: a forged log must not choose where a key is sent."""
    for name in _MODELS:
        for server in sorted(addresses_elsewhere(arguments.get(name))):
            raise RecordingError(
                f"{recording.path.name} names the server {server}, which would get your key: give {name} again if you "
                "trust it."
            )


def _plain(given: Any) -> Any:
    value = value_of(given)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return {_OBJECT: type(value).__name__}


def _holds_object(value: Any) -> bool:
    if isinstance(value, dict):
        return value.keys() == {_OBJECT} or any(map(_holds_object, value.values()))
    return isinstance(value, list) and any(map(_holds_object, value))


def _holds_hidden(value: Any) -> bool:
    """Whether a secret was removed from plain data."""
    if isinstance(value, Mapping | list | tuple):
        return any(map(_holds_hidden, value.values() if isinstance(value, Mapping) else value))
    return isinstance(value, str) and HIDDEN in value


def without_hidden(value: Any) -> Any:
    """The value without the keys that were removed from the log; they are read from the environment again."""
    if isinstance(value, dict):
        return {key: without_hidden(held) for key, held in value.items() if held != HIDDEN}
    return [without_hidden(item) for item in value] if isinstance(value, list) else value


def check_is_whole(recording: Recording, overrides: Mapping[str, Any]) -> None:
    """Check that the log holds the tools and the environment of a run.

    Raises:
        RecordingError: a value could not be recorded, or was removed as a secret, and is not given again.
    """
    known, started = recording.metadata.get("configuration") or {}, recording.trajectory.started
    tools = {"custom_tools": started.tools if started else (), "custom_sub_tools": known.get("custom_sub_tools") or ()}
    absent = {argument: [tool["name"] for tool in given if _is_absent(tool)] for argument, given in tools.items()}
    if _holds_hidden(known.get("environment_kwargs")):
        absent["environment_kwargs"] = ["environment_kwargs"]
    for argument, names in absent.items():
        if names and argument not in overrides:
            raise RecordingError(f"Values of {', '.join(names)} are not in the log: give {argument} again.")


def _is_absent(tool: Mapping[str, Any]) -> bool:
    return tool["kind"] != "function" and ("content" not in tool or _holds_hidden(tool))


def _tools(known: Any) -> dict[str, Any]:
    """Custom tools from the log: values, code, and for each function one that raises an error."""
    tools = {}
    for tool in known:
        name, description = tool["name"], tool["description"]
        if tool["kind"] == "function" and "functions" in tool["card"]:
            tools[name] = RecordedServer(name, tool["card"], description)
            continue
        content = _absent(name) if tool["kind"] == "function" else tool.get("content")
        tools[name] = {"tool": content, "description": description}
    return tools


def _absent(name: str) -> Callable[..., NoReturn]:
    def absent(*_: Any, **__: Any) -> NoReturn:
        raise RecordingError(f"The tool {name} is not in the log: give custom_tools again.")

    return absent
