"""Functions that call a tool on the host, and the servers of several."""

from __future__ import annotations

import base64
import builtins
import json
import sys
from difflib import get_close_matches
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any

from .questions import QueryError

if TYPE_CHECKING:
    from .wire import Asker

PARAMETER_KINDS: tuple[Any, ...] = tuple(type(Parameter.VAR_KEYWORD))  # type: ignore[arg-type]


class ToolError(RuntimeError):
    """A custom tool raised something that is no built-in exception; the message begins with its name."""


def stand_in(guest: Asker, card: dict[str, Any]) -> Any:
    """A function that calls a tool on the host, or a server with several."""
    name = card["name"]
    if "functions" in card:
        made: type = type(name, (ToolServer,), {"__module__": "rlm_guest", "__doc__": card["doc"]})
        return made(guest, card)

    def tool(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        (answer,) = guest.ask(tool_call(name, args, kwargs))
        return result_of(name, answer)

    return described(tool, name, card)


def tool_call(name: str, args: Any, kwargs: Any) -> Any:
    """The payload of an `ask`."""
    __tracebackhide__ = True
    try:
        return json.loads(json.dumps({"kind": "tool", "tool": name, "args": args, "kwargs": kwargs}))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} takes values that JSON can hold (text, numbers, lists, dicts): {error}") from None


def result_of(name: str, answer: dict[str, str]) -> Any:
    """What a tool returned. Raises what it raised."""
    __tracebackhide__ = True
    if "refused" in answer:
        raise ValueError(answer["refused"])
    if "error" in answer:
        raise tool_exception(name, answer["error"])
    return json.loads(answer["text"])


def described(function: Any, name: str, card: dict[str, Any], more: str = "") -> Any:
    """The function with its name, its docstring and its signature."""
    function.__name__ = function.__qualname__ = name
    function.__module__ = "rlm_guest"
    function.__doc__ = card["doc"] + more
    if card["parameters"] is not None:
        function.__signature__ = Signature([parameter(p) for p in card["parameters"]])
    return function


class ToolServer:
    """The tools of a server on the host, as functions. Each server has a subclass, so that `help()` shows them."""

    def __init__(self, guest: Asker, card: dict[str, Any]) -> None:
        self._guest = guest
        self._name = card["name"]
        self._known: set = set()  # type: ignore[type-arg]  # old kernels cannot subscript it
        for own in OWN_FUNCTIONS:
            self._define(own)
        self._define_all(card)

    def _define_all(self, card: dict[str, Any]) -> None:
        """Define the functions of a card, and remove those that are not in it."""
        names = {function["name"] for function in card["functions"]}
        for name in self._known - names:
            for form in (name, f"a{name}"):
                if form in vars(type(self)):
                    delattr(type(self), form)
        for function in card["functions"]:
            self._define(function)
        self._known = names

    def _define(self, card: dict[str, Any]) -> None:
        name, called = card["name"], f"{self._name}.{card['name']}"

        def tool(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            (answer,) = self._guest.ask(tool_call(called, args, kwargs))
            return self._value(called, answer)

        async def atool(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            (answer,) = await self._guest.ask_async(tool_call(called, args, kwargs))
            return self._value(called, answer)

        setattr(type(self), name, staticmethod(described(tool, name, card)))
        setattr(type(self), f"a{name}", staticmethod(described(atool, f"a{name}", card, "\n\nUse with await.")))

    def _value(self, called: str, answer: dict[str, str]) -> Any:
        """The value that a function returns. Notes what the host says besides."""
        __tracebackhide__ = True
        reply = result_of(called, answer)
        if "note" in reply:
            print(reply["note"], file=sys.stderr)
        if "changed" in reply:
            before = self._known
            self._define_all(reply["changed"])
            changes = (("New", self._known - before), ("Gone", before - self._known))
            if told := [f"{what}: {', '.join(sorted(names))}." for what, names in changes if names]:
                print(f"The tools of {self._name} have changed. {' '.join(told)}", file=sys.stderr)
        values = [part_value(part) for part in reply["parts"]]
        return values[0] if len(values) == 1 else values or None

    def __getattr__(self, name: str) -> Any:
        """A function that the server may have by now."""
        __tracebackhide__ = True
        if name.startswith("_"):
            raise AttributeError(name)
        missing = None
        try:
            (answer,) = self._guest.ask(tool_call(f"{self._name}.*", (), {}))
            self._value(self._name, answer)
        except Exception as error:
            missing = error
        found = vars(type(self)).get(name)
        if found is None:
            near = get_close_matches(name, self._known, n=3)
            instead = f"; did you mean {', '.join(near)}?" if near else f". {self._name}.tools('words') finds them."
            raise AttributeError(f"{self._name} has no tool {name!r}{instead}") from missing
        return found.__get__(self)

    def __repr__(self) -> str:
        names = sorted(self._known)
        more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
        return f"<tools of {self._name}: {', '.join(names[:MAX_SHOWN])}{more}>"


MAX_SHOWN = 50


def own_function(name: str, doc: str, *parameters: tuple[str, str | None]) -> dict[str, Any]:
    """The card of a function that each server has."""
    kind = int(Parameter.POSITIONAL_OR_KEYWORD)
    shown = [{"name": given, "kind": kind, "default": default, "annotation": "str"} for given, default in parameters]
    return {"name": name, "doc": doc, "parameters": shown}


OWN_FUNCTIONS = (
    own_function("tools", "The functions of this server with all these words in name or description.", ("words", "''")),
    own_function("resources", "The resources of this server, a list of dicts with uri and name."),
    own_function("read_resource", "The content of a resource of this server.", ("uri", None)),
)


def part_value(part: dict[str, Any]) -> Any:
    """A part of what a server returned: text, plain data, a picture (for display and `llm_query`) or bytes."""
    for kind in ("text", "json"):
        if kind in part:
            return part[kind]
    if "bytes" in part:
        return base64.b64decode(part["bytes"])
    from IPython.display import Image

    data = base64.b64decode(part["image"])
    try:
        return Image(data=data, format=part["type"].partition("/")[2])  # type: ignore[no-untyped-call]
    except ValueError:  # an old IPython does not know the format
        return data


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
    if kind == "ToolError":
        return ToolError(message)
    known = getattr(builtins, kind, None)
    if not (isinstance(known, type) and issubclass(known, Exception)):
        return ToolError(f"{kind}: {message}")
    try:
        return known(message)
    except TypeError:  # a few, such as UnicodeDecodeError, need more arguments
        return ToolError(f"{kind}: {message}")
