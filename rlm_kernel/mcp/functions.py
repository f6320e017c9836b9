"""The tools of a server as Python functions: names, signatures and docstrings, made from what the server says.

A server may say anything. Its texts are shown only, and its names are made Python names. Nothing of it is executed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import TYPE_CHECKING, Any

from rlm_kernel.mcp.naming import identifier
from rlm_kernel.text import clip_end, one_line, plain

if TYPE_CHECKING:
    from mcp_types import Tool

MAX_FUNCTIONS = 1_000
"""Of a server. Further tools have no function."""
MAX_PARAMETERS = 100
MAX_DESCRIPTION = 2_000
"""Characters of the description of a tool in its docstring."""
MAX_PARAMETER_DESCRIPTION = 300
MAX_SUMMARY = 160
MAX_SIGNATURE = 240
"""Characters in the prompt."""
MAX_CHOICES = 12
MAX_CHOICE = 40
MAX_DEFAULT = 60
MAX_DEPTH = 4
"""Nesting of a type. Deeper ones are `Any`."""
MAX_FIELDS = 20

OWN = ("read_resource", "resources", "tools")
"""Functions that every server has."""

_TYPES = {
    "string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None", "array": "list",
    "object": "dict",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Argument:
    """A parameter of a function.

    Attributes:
        name: in Python.
        given: by the server.
        annotation: its type, for people and models.
        description: of the server.
        default: as text; None: it is required.
        nullable: whether None is sent. If not, None stands for an argument that is left out.
    """

    name: str
    given: str
    annotation: str
    description: str
    default: str | None
    nullable: bool


@dataclass(frozen=True, slots=True)
class Function:
    """A tool as a function.

    Attributes:
        name: in Python.
        tool: the name of the server.
        title: for people.
        doc: the docstring.
        arguments: required ones first.
        takes_more: whether the server takes arguments that it does not name.
        is_read_only: whether the server says that it changes nothing.
        unwraps: whether the value is the field `result` of what the server returns.
    """

    name: str
    tool: str
    title: str
    doc: str
    arguments: tuple[Argument, ...]
    takes_more: bool
    is_read_only: bool
    unwraps: bool

    def card(self) -> dict[str, Any]:
        """What the guest needs to define it."""
        kind = int(Parameter.POSITIONAL_OR_KEYWORD)
        parameters: list[dict[str, Any]] = [
            {"name": one.name, "kind": kind, "default": one.default, "annotation": one.annotation}
            for one in self.arguments
        ]
        if self.takes_more:
            name = identifier("arguments", {one.name for one in self.arguments}, "more")
            parameters.append(
                {"name": name, "kind": int(Parameter.VAR_KEYWORD), "default": None, "annotation": None}
            )
        return {"name": self.name, "doc": self.doc, "parameters": parameters}

    @property
    def line(self) -> str:
        """The function in one line: signature and summary."""
        shown = [
            f"{one.name}: {one.annotation}" + ("" if one.default is None else f" = {one.default}")
            for one in self.arguments
        ]
        signature = clip_end(", ".join([*shown, *(["**arguments"] if self.takes_more else [])]), MAX_SIGNATURE)
        return f"{self.name}({signature}) {one_line(self.doc, MAX_SUMMARY)}"

    def bound(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by the names of the server.

        Raises:
            TypeError: the call does not fit the signature.
        """
        kinds = {one.name: one for one in self.arguments}
        parameters = [
            Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=Parameter.empty if one.default is None else None)
            for name, one in kinds.items()
        ]
        if self.takes_more:
            name = identifier("arguments", kinds, "more")
            parameters.append(Parameter(name, Parameter.VAR_KEYWORD))
        originals = {one.given: one.name for one in self.arguments}  # the names of the server are understood, too
        named = {originals.get(name, name): value for name, value in kwargs.items()}
        try:
            bound = inspect.Signature(parameters).bind(*args, **named).arguments
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}. Its signature is {clip_end(self.line, MAX_SIGNATURE)}") from None
        more = bound.pop(name, {}) if self.takes_more else {}
        known = {kinds[given]: value for given, value in bound.items()}
        return {one.given: value for one, value in known.items() if value is not None or one.nullable} | more


def functions_of(tools: Iterable[Tool], server: str, known: Mapping[str, str]) -> dict[str, Function]:
    """The functions of a server's tools, by name.

    Args:
        tools: as listed by the server.
        server: its name.
        known: the names of functions that were made before, by the name of the tool: they stay.
    """
    names, made = dict(known), dict[str, Function]()
    for tool in tools:
        if len(made) >= MAX_FUNCTIONS:
            break
        if (name := names.get(tool.name)) is None or name in made:
            taken = {*OWN, *made, *names.values(), *(f"a{name}" for name in (*OWN, *made, *names.values()))}
            name = names[tool.name] = identifier(tool.name, taken, server)
        made[name] = _function(name, tool)
    return made


def _function(name: str, tool: Tool) -> Function:
    schema = tool.input_schema if isinstance(tool.input_schema, dict) else {}
    notes = tool.annotations
    title = tool.title or (notes.title if notes else None) or tool.name
    is_read_only = notes is not None and notes.read_only_hint is True
    arguments = _arguments(schema)
    extra = schema.get("additionalProperties")
    takes_more = "properties" not in schema or extra is True or (isinstance(extra, dict) and bool(extra))
    returned = tool.output_schema if isinstance(tool.output_schema, dict) else {}
    fields = returned.get("properties")
    names = list(fields) if isinstance(fields, dict) else []
    doc = _doc(tool, name, arguments, returned, is_read_only=is_read_only)
    return Function(
        name, tool.name, one_line(title, MAX_SUMMARY), doc, arguments, takes_more, is_read_only, names == ["result"]
    )


def _arguments(schema: dict[str, Any]) -> tuple[Argument, ...]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return ()
    listed = schema.get("required")
    required = {name for name in listed if isinstance(name, str)} if isinstance(listed, list) else set()
    names: set[str] = set()
    made: list[Argument] = []
    for given in sorted(list(properties)[:MAX_PARAMETERS], key=lambda name: name not in required):
        about = properties[given] if isinstance(properties[given], dict) else {}
        name = identifier(given, names, "argument")
        names.add(name)
        annotation = type_text(about, schema)
        default = None if given in required else clip_end(repr(about.get("default")), MAX_DEFAULT)
        text = about.get("description")
        description = clip_end(plain(text), MAX_PARAMETER_DESCRIPTION) if isinstance(text, str) else ""
        nullable = "None" in annotation.split(" | ") or (given in required and annotation == "Any")
        made.append(Argument(name, given, annotation, description, default, nullable))
    return tuple(made)


def type_text(schema: Any, root: dict[str, Any], depth: int = 0) -> str:
    """A JSON Schema as the text of a Python type. What it cannot say is `Any`."""
    if depth > MAX_DEPTH or not isinstance(schema, dict):
        return "Any"
    if isinstance(schema.get("$ref"), str):
        return type_text(_referred(schema["$ref"], root), root, depth + 1)
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(choices, list) and choices:
        shown = [clip_end(repr(choice), MAX_CHOICE) for choice in choices[:MAX_CHOICES]]
        return f"Literal[{', '.join([*shown, *(['...'] if len(choices) > MAX_CHOICES else [])])}]"
    for key in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(key), list) and options:
            return _either(type_text(option, root, depth + 1) for option in options[:MAX_CHOICES])
    kind = schema.get("type")
    if isinstance(kind, list):
        return _either(_TYPES.get(one, "Any") for one in kind[:MAX_CHOICES] if isinstance(one, str))
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"list[{type_text(schema['items'], root, depth + 1)}]"
    return _TYPES.get(kind, "Any") if isinstance(kind, str) else "Any"


def _either(options: Iterable[str]) -> str:
    texts = list(dict.fromkeys(options))
    return "Any" if "Any" in texts or not texts else " | ".join(sorted(texts, key=lambda text: text == "None"))


def _referred(reference: str, root: dict[str, Any]) -> Any:
    """The part of the schema that a reference names; only those within the document are followed."""
    found: Any = root
    if not reference.startswith("#"):
        return None
    for step in reference[1:].split("/")[1:]:
        found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found


def _doc(
    tool: Tool, name: str, arguments: Iterable[Argument], returned: dict[str, Any], *, is_read_only: bool
) -> str:
    parts = [clip_end(plain(tool.description or tool.title or tool.name).strip(), MAX_DESCRIPTION)]
    described = [f"    {one.name}: {' '.join(one.description.split())}" for one in arguments if one.description]
    if described:
        parts.append("\n".join(["Args:", *described]))
    fields = returned.get("properties")
    if isinstance(fields, dict) and fields and list(fields) != ["result"]:
        shown = [
            f"{one_line(field, MAX_CHOICE)}: {type_text(about, returned)}"
            for field, about in list(fields.items())[:MAX_FIELDS]
        ]
        parts.append(f"Returns: a dict with {', '.join(shown)}")
    elif isinstance(fields, dict) and fields:
        parts.append(f"Returns: {type_text(fields['result'], returned)}")
    if not is_read_only:
        parts.append("It may change something: the user may be asked.")
    if tool.name != name:
        parts.append(f"The server calls it {one_line(tool.name, MAX_SUMMARY)!r}.")
    return "\n\n".join(parts)
