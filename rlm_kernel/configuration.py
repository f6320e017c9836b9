"""The arguments of an `RLM` as plain data for its log, and back for a run that goes on from one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from rlm_kernel.clients.endpoint import is_loopback
from rlm_kernel.errors import RecordingError
from rlm_kernel.tools import tools_of
from rlm_kernel.trajectory.recording import Recording
from rlm_kernel.trajectory.redaction import HIDDEN

NOT_RECORDED = frozenset({
    "self", "logger", "verbose", "custom_tools",
    "on_iteration_start", "on_iteration_complete", "on_subcall_start", "on_subcall_complete",
})  # fmt: skip
"""Arguments that change nothing of the run itself; its tools stand in the log of their own."""

_OBJECT = "object"
_ADDRESSES = {"base_url", "api_base", "custom_host", "azure_endpoint", "url"}


def recorded(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as plain data. An object, such as a model of the user's own, leaves the name of its class."""
    plain = {name: _plain(value) for name, value in arguments.items() if name not in NOT_RECORDED}
    sub_tools = arguments.get("custom_sub_tools")
    if sub_tools is not None:
        plain["custom_sub_tools"] = [tool.recorded() for tool in tools_of(sub_tools, "custom_sub_tools")]
    return plain


def arguments_of(recording: Recording, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an `RLM` that goes on from a run.

    Args:
        recording: the run.
        overrides: arguments that are given again, or otherwise.

    Raises:
        RecordingError: an argument was an object and is not given again; a server elsewhere would get a key because the
            log says so; or it is not one of ours.
    """
    known = recording.metadata.get("configuration")
    if not isinstance(known, dict):
        raise RecordingError(
            f"{recording.path} does not hold the arguments of its RLM: it was written by another tool."
        )
    arguments = {name: value for name, value in known.items() if name not in overrides}
    if "backend" in overrides and "backend_kwargs" not in overrides:
        arguments.pop("backend_kwargs", None)  # they belong to the other backend
    _check_servers(recording, arguments)
    missing = sorted(name for name, value in arguments.items() if _holds_object(value))
    if missing:
        raise RecordingError(f"{', '.join(missing)} held objects, which a log cannot: give them again.")
    if isinstance(sub_tools := arguments.get("custom_sub_tools"), list):
        arguments["custom_sub_tools"] = _tools(sub_tools)
    started = recording.trajectory.started
    if started is not None and started.tools:
        arguments["custom_tools"] = _tools(started.tools)
    return {**{name: without_hidden(value) for name, value in arguments.items()}, **overrides}


def _check_servers(recording: Recording, arguments: Mapping[str, Any]) -> None:
    """A forged log must not have a key sent to a server of its choice."""
    for name in ("backend_kwargs", "other_backend_kwargs"):
        for server in sorted(servers_elsewhere(arguments.get(name))):
            raise RecordingError(
                f"{recording.path.name} names the server {server}, which would get your key: give {name} again if you "
                "trust it."
            )


def servers_elsewhere(value: Any) -> set[str]:
    """What stands in fields of addresses, in plain data, and is not on this machine."""
    if isinstance(value, list):
        return set().union(*map(servers_elsewhere, value))
    if not isinstance(value, dict):
        return set()
    here = {v for k, v in value.items() if k in _ADDRESSES and isinstance(v, str) and not is_loopback(v)}
    return here.union(*map(servers_elsewhere, value.values()))


def _plain(value: Any) -> Any:
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


def without_hidden(value: Any) -> Any:
    """Without the keys that were taken out of the log: the environment is asked for them again."""
    if isinstance(value, dict):
        return {key: without_hidden(held) for key, held in value.items() if held != HIDDEN}
    return [without_hidden(item) for item in value] if isinstance(value, list) else value


def _tools(known: Any) -> dict[str, Any]:
    """Custom tools from the log: values and code as they were; a function stands in for itself until it is called."""
    tools = {}
    for tool in known:
        content = _absent(tool["name"]) if tool["kind"] == "function" else tool.get("content")
        tools[tool["name"]] = {"tool": content, "description": tool["description"]}
    return tools


def _absent(name: str) -> Callable[..., NoReturn]:
    def absent(*_: Any, **__: Any) -> NoReturn:
        raise RecordingError(f"The tool {name} is not in the log: give custom_tools again.")

    return absent
