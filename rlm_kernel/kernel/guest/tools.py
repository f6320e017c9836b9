"""Functions that call a tool on the host."""

from __future__ import annotations

import builtins
import json
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any

from .questions import QueryError

if TYPE_CHECKING:
    from .wire import Asker

PARAMETER_KINDS: tuple[Any, ...] = tuple(type(Parameter.VAR_KEYWORD))  # type: ignore[arg-type]


class ToolError(RuntimeError):
    """A custom tool raised something that is no built-in exception; the message begins with its name."""


def stand_in(guest: Asker, card: dict[str, Any]) -> Any:
    """A function that calls a tool on the host."""
    name = card["name"]

    def tool(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        try:
            payload = json.loads(json.dumps({"kind": "tool", "tool": name, "args": args, "kwargs": kwargs}))
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} takes values that JSON can hold (text, numbers, lists, dicts): {error}") from None
        (answer,) = guest.ask(payload)
        if "refused" in answer:
            raise ValueError(answer["refused"])
        if "error" in answer:
            raise tool_exception(name, answer["error"])
        return json.loads(answer["text"])

    tool.__name__ = tool.__qualname__ = name
    tool.__module__ = "rlm_guest"
    tool.__doc__ = card["doc"]
    if card["parameters"] is not None:
        tool.__signature__ = Signature([parameter(p) for p in card["parameters"]])  # type: ignore[attr-defined]
    return tool


def parameter(fields: dict[str, Any]) -> Parameter:
    """A parameter of a tool, whose default and annotation have the `repr` that they have on the host."""

    def shown(text: str | None) -> Any:
        return Parameter.empty if text is None else type("Text", (), {"__repr__": lambda _: text})()

    default, annotation = shown(fields["default"]), shown(fields["annotation"])
    return Parameter(fields["name"], PARAMETER_KINDS[fields["kind"]], default=default, annotation=annotation)


def tool_exception(name: str, error: str) -> BaseException:
    """The exception that a tool raised on the host: of the same class if that is built in."""
    try:
        kind, message = json.loads(error)
    except ValueError:
        return QueryError(f"{name} has no answer: {error}")
    known = getattr(builtins, kind, None)
    if not (isinstance(known, type) and issubclass(known, Exception)):
        return ToolError(f"{kind}: {message}")
    try:
        return known(message)
    except TypeError:  # a few, such as UnicodeDecodeError, need more arguments
        return ToolError(f"{kind}: {message}")
