"""Facts about a context for the opening message: its shape, and a few pieces of it.

A model that has seen nothing of the context invents it. `describe` reads a bounded part: type, size, the first parts,
some of the end, and the form (a table, a log, source files). It is cheap for a value of 500 MB, which is not copied,
lowered or joined.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from rlm_kernel.text import clip_end
from rlm_kernel.types import Foreign, Prompt

Form = Literal["sources", "files", "texts", "table", "log", "prose", "json", "records", "values", "empty"]
"""The form of a context: Python files; other long texts; short texts; lines with columns; lines with fields; other
text; JSON in a str; dicts; other values; empty."""

_HEAD_CHARACTERS = 4_000
_TAIL_CHARACTERS = 1_000
_PARTS = 8
_TYPED_PARTS = 300
_COUNTED_PARTS = 100_000
_MAX_DEPTH = 6
_LONG_TEXT = 600
_LOOKED_AT_LINES = 6
_FIELDS = range(3, 40)


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a context: the whole text, an item of a list or an entry of a dict.

    Attributes:
        label: the expression for it, e.g. ``context['a.py']``.
        type_name: the name of its type.
        length: its `len()`, or None if it has none.
        head: the beginning of a str; for other types, a bounded `repr`.
        tail: the end of a long text; otherwise empty.
    """

    label: str
    type_name: str
    length: int | None
    head: str
    tail: str = ""


@dataclass(frozen=True, slots=True)
class ContextFacts:
    """Facts about a context.

    Attributes:
        type_name: ``"str"``, ``"dict"`` or ``"list"``.
        length: characters of a str, keys of a dict, items of a list.
        characters: of all text in it, one level deep; None if it has too many parts.
        parts: the text itself, or the first few items or entries.
        part_types: the types of the first few hundred items or values, in order of appearance.
        lines: the number of lines of a str; None for other types.
        form: its form.
    """

    type_name: str
    length: int
    characters: int | None
    parts: tuple[Part, ...]
    part_types: tuple[str, ...] = ()
    lines: int | None = None
    form: Form = "empty"


def describe(prompt: Prompt) -> ContextFacts:
    """The facts about a context. Takes milliseconds; counting the lines of 500 MB of text takes 0.2 s."""
    if isinstance(prompt, str):
        lines = prompt.count("\n") + (not prompt.endswith("\n")) if prompt else 0
        parts = (_part("context", prompt),)
        return ContextFacts("str", len(prompt), len(prompt), parts, lines=lines, form=_form_of_text(prompt))
    if isinstance(prompt, bytes | Foreign):
        part = _part("context", prompt)
        return ContextFacts(part.type_name, len(prompt), None, (part,), form="values")
    some = list(islice(pairs(prompt), _TYPED_PARTS))
    return ContextFacts(
        type(prompt).__name__,
        len(prompt),
        _characters(prompt),
        tuple(_part(key_label(key), value) for key, value in some[:_PARTS]),
        tuple(dict.fromkeys(type_name(value) for _, value in some)),
        form=_form_of_parts(some),
    )


def shape(facts: ContextFacts) -> str:
    """One sentence about the type and size of `context`."""
    if facts.type_name == "str":
        lines = f" in {facts.lines:,} lines" if facts.lines and facts.lines > 1 else ""
        return f"`context` is a str of {facts.length:,} characters{lines}."
    if facts.type_name not in {"dict", "list"}:
        return f"`context` is of type {facts.type_name}, of length {facts.length:,}."
    unit, values = ("keys", "values") if facts.type_name == "dict" else ("items", "items")
    kinds = " or ".join(facts.part_types[:4])
    total = f" ({facts.characters:,} characters in all)" if facts.characters else ""
    of = f"; the {values} are of type {kinds}{total}" if kinds else ""
    unit = unit if facts.length != 1 else unit[:-1]
    return f"`context` is a {facts.type_name} with {facts.length:,} {unit}{of}."


def preview(facts: ContextFacts, limit: int) -> str:
    """The shape of `context`, and about `limit` characters of it as a quoted string."""
    if not facts.length:
        return shape(facts)
    if facts.type_name == "str":
        return f"{shape(facts)}\n{_ends(facts.parts[0], limit)}"
    if facts.type_name not in {"dict", "list"}:
        return f"{shape(facts)} It begins:\n{facts.parts[0].head[:limit]}"
    labels = ", ".join(part.label for part in facts.parts[:4])
    return (
        f"{shape(facts)} The first are {labels}.\n{facts.parts[0].label} begins: {_quote(facts.parts[0].head, limit)}"
    )


def sample(facts: ContextFacts, limit: int) -> str:
    """The shape of `context`, and its first lines unquoted, which are easier for a small model."""
    if not facts.length:
        return shape(facts)
    part = facts.parts[0]
    first = "\n".join(line[:160] for line in part.head[:limit].strip("\n").split("\n")[:4])
    labels = (
        ""
        if facts.type_name not in {"dict", "list"}
        else f" First: {', '.join(part.label for part in facts.parts[:3])}."
    )
    return f"{shape(facts)}{labels}\n{part.label} begins:\n{first}{_how_to_read(facts)}"


def bounded_repr(value: Any, limit: int) -> str:
    """`repr(value)` cut to `limit` characters; the whole `repr` is not computed."""
    return clip_end("".join(_pieces(value, limit, 0)), limit)


def pairs(prompt: dict[str, Any] | list[Any]) -> Iterable[tuple[Any, Any]]:
    """Keys or indices, with their values."""
    return prompt.items() if isinstance(prompt, dict) else enumerate(prompt)


def key_label(key: Any) -> str:
    """The expression for an entry, e.g. ``context['a.py']``."""
    return f"context[{bounded_repr(key, 120)}]"


def _how_to_read(facts: ContextFacts) -> str:
    """The line of code that parses a structured text; a small model would split it by hand."""
    if facts.form == "json":
        return "\nRead it with: data = json.loads(context)"
    if facts.form != "table":
        return ""
    mark = _mark(_first_lines(facts.parts[0].head))
    return f"\nRead it with: rows = list(csv.DictReader(io.StringIO(context), delimiter={mark!r}))"


def _ends(part: Part, limit: int) -> str:
    if len(part.head) <= limit and not part.tail:
        return f"It reads: {_quote(part.head, limit)}"
    tail = part.tail or part.head
    return f"It begins: {_quote(part.head, limit * 3 // 4)}\nIt ends: {_quote(tail[-max(1, limit // 4) :], limit)}"


def _quote(text: str, limit: int) -> str:
    return json.dumps(text[:limit], ensure_ascii=False)


def _part(label: str, value: Any) -> Part:
    if not isinstance(value, str):
        length = len(value) if hasattr(value, "__len__") else None
        return Part(label, type_name(value), length, bounded_repr(value, _HEAD_CHARACTERS))
    tail = value[-_TAIL_CHARACTERS:] if len(value) > _HEAD_CHARACTERS + _TAIL_CHARACTERS else ""
    return Part(label, "str", len(value), value[: None if not tail else _HEAD_CHARACTERS], tail)


def type_name(value: Any) -> str:
    """The name of the type of a value in a context."""
    return value.type_name if isinstance(value, Foreign) else type(value).__name__


def _characters(prompt: dict[str, Any] | list[Any]) -> int | None:
    if len(prompt) > _COUNTED_PARTS:
        return None
    return sum(len(value) for _, value in pairs(prompt) if isinstance(value, str))


def _form_of_text(text: str) -> Form:
    whole = _first_lines(text)
    if not whole[0]:
        return "empty"
    if text.lstrip()[:1] in ("{", "[") and text.rstrip()[-1:] in ("}", "]"):
        return "json"
    if _mark(whole) is not None:
        return "table"
    return "log" if _alike([len(line.split()) for line in whole], slack=2) else "prose"


def _first_lines(text: str) -> list[str]:
    """The first few lines, without the last one that may be cut."""
    lines = text[:_HEAD_CHARACTERS].strip().split("\n")[: _LOOKED_AT_LINES + 1]
    return lines[:-1] if len(lines) > _LOOKED_AT_LINES else lines


def _mark(lines: Sequence[str]) -> str | None:
    """The character that separates the columns of a table."""
    marks = (mark for mark in ",;\t|" if _alike([line.count(mark) + 1 for line in lines]))
    return next(marks, None)


def _alike(fields: Sequence[int], slack: int = 0) -> bool:
    """Whether all lines have about the same number of fields, within `_FIELDS`."""
    return len(fields) > 1 and min(fields) in _FIELDS and max(fields) - min(fields) <= slack


def _form_of_parts(some: Sequence[tuple[Any, Any]]) -> Form:
    if not some:
        return "empty"
    if all(isinstance(value, dict) for _, value in some):
        return "records"
    if not all(isinstance(value, str) for _, value in some):
        return "values"
    if sum(str(key).endswith(".py") for key, _ in some) * 2 > len(some):
        return "sources"
    return "files" if sum(len(value) for _, value in some) > _LONG_TEXT * len(some) else "texts"


def _pieces(value: Any, limit: int, depth: int) -> Iterator[str]:
    if isinstance(value, Foreign):
        yield value.head
    elif isinstance(value, (str, bytes)):
        yield repr(value[: limit + 1])
    elif isinstance(value, (dict, list, tuple)) and depth < _MAX_DEPTH:
        yield from _container_pieces(value, limit, depth)
    elif isinstance(value, (bool, float, type(None))) or (isinstance(value, int) and abs(value) < 1 << 1000):
        yield repr(value)
    else:
        yield f"<{type(value).__name__}>"


def _container_pieces(value: Any, limit: int, depth: int) -> Iterator[str]:
    brackets = {"dict": "{}", "tuple": "()"}.get(type(value).__name__, "[]")
    yield brackets[0]
    room = limit
    for number, item in enumerate(value.items() if isinstance(value, dict) else value):
        pair = item if isinstance(value, dict) else (item,)
        text = (", " if number else "") + ": ".join("".join(_pieces(v, room, depth + 1)) for v in pair)
        yield text
        room -= len(text)
        if room <= 0:
            return
    yield brackets[1]
