"""Code and answers that a model writes as a call of a tool, in the forms that chat templates have for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

_VALUE = r"(?P<value>[^<]*+(?:<(?!/parameter>|/arg_value>|function=|invoke |tool_call>)[^<]*+)*+)"
_NAME_BEFORE_JSON = (
    r"\s*+(?:(?:functions?\.)?(?P<name>\w[\w.]{0,39}+)(?::\d{1,9}+)?\s*+(?:\[ARGS\]|<[^<>\n]{1,40}+>|>|(?=```))\s*+)?"
    r"(?:```(?:json)?\s*+)?"
)
CALL_OF_TOOL = re.compile(
    # <function=python><parameter=code>x</parameter>, <invoke name="python"><parameter name="code">,
    # <tool_call>python<arg_key>code</arg_key><arg_value>x</arg_value>
    r"<(?:(?:function=|invoke[ ]name=[\"']?|tool_call>\s*+)(?P<function>[\w.-]{1,40}+)[\"']?>?\s*+"
    r"<(?:parameter(?:=|[ ]name=[\"']?)|arg_key>)[\w.-]{1,40}+[\"']?(?:[^<>\n]{0,40}+>|</arg_key>\s*+<arg_value>)"
    rf"{_VALUE}</(?:parameter|arg_value)>(?:\s*+</\w++>){{0,2}}+"
    # harmony
    r"|\|(?:start\|>\w*+[ \t]*+(?:<\|channel\|>[ \t]*+\w++[ \t]*+)?|channel\|>[ \t]*+\w++[ \t]*+)"
    r"to=(?:functions?\.)?(?P<to>[\w.]{1,40}+)[^<\n]{0,40}+"
    r"(?:<\|channel\|>[^<\n]{0,40}+)?(?:<\|constrain\|>[^<\n]{0,40}+)?<\|message\|>"
    r"(?P<message>[^<]*+(?:<(?!\|(?:call|end|return|start)\|>)[^<]*+)*+)(?:<\|(?:call|end|return)\|>)?"
    rf"|(?:[|\uff5c]?(?:tool|function)[\w\u2581 ]{{0,40}}+[|\uff5c]?>|\|START_ACTION\|>|\|python_tag\|>"
    rf"|function=(?=\w{{1,40}}>\{{)){_NAME_BEFORE_JSON}(?=[\[{{]))"
    rf"|\[TOOL_CALLS\]{_NAME_BEFORE_JSON.replace('<name>', '<named>')}(?=[\[{{])"
)
"""A call of a tool; without `function` and `to`, JSON follows."""

_JSON_ENDS = re.compile(r"\s*+(?:```)?\s*+(?:<[/|\uff5c][\w\u2581|\uff5c]{1,40}+>\s*+){0,3}+")
_RUNS = re.compile(
    r"python|\b_?repl\b|jupyter|interpreter|(?:run|exec|execute|eval)_?(?:code|cell)?\Z|\A(?:tool_)?code", re.IGNORECASE
)
_ANSWERS = re.compile(r"\A(?P<final>final(?:_?answer)?)\Z|\Afinal_?var\Z", re.IGNORECASE)
_NAMES = ("name", "tool_name", "tool", "function", "action")
_ARGUMENTS = ("arguments", "parameters", "action_input", "input", "args", "tool_input")
_CODE_KEYS = ("code", "python_code", "source", "script", "cell", "program", "input", "command")
_ANSWER_KEYS = ("answer", "variable_name", "text", "value", "content")
_MAX_JSON = 50_000
_MAX_CALLS = 50


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that asks to run code, or gives the answer.

    Attributes:
        kind: which of them.
        text: the code; or `FINAL(...)`.
    """

    kind: Literal["code", "answer"]
    text: str


class ToolCalls:
    """Reads the calls of tools of one reply."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._decoded = 0

    def read(self, mark: re.Match[str]) -> tuple[list[ToolCall], int]:
        """The calls at a match of `CALL_OF_TOOL`, and where the reply goes on."""
        if mark["function"] is not None:
            return list(_call(mark["function"], mark["value"].strip("\r\n"))), mark.end()
        if mark["to"] is not None:
            return list(_call(mark["to"], _decoded(mark["message"].strip()))), mark.end()
        self._decoded += 1
        if self._decoded > _MAX_CALLS:
            return [], mark.end()
        try:
            value, length = _DECODER.raw_decode(self._text[mark.end() : mark.end() + _MAX_JSON])
        except (ValueError, RecursionError):
            return [], mark.end()
        end = _JSON_ENDS.match(self._text, mark.end() + length)
        name = mark["name"] or mark["named"]
        calls = list(_call(name, value) if name else written_calls(value))
        return calls, end.end() if calls and end is not None else mark.end()


_DECODER = json.JSONDecoder(strict=False)


def calls_of_reply(text: str) -> list[ToolCall]:
    """The calls of a text that is nothing but their JSON."""
    if not text.startswith(("{", "[")) or len(text) > _MAX_JSON:
        return []
    return list(written_calls(_decoded(text)))


def written_calls(value: Any) -> Iterator[ToolCall]:
    """The calls of decoded JSON: `{"name": ..., "arguments": {...}}`, or a list of them."""
    for call in value[:_MAX_CALLS] if isinstance(value, list) else [value]:
        if not isinstance(call, dict):
            continue
        inner = call["function"] if isinstance(call.get("function"), dict) else call
        name = next((inner[key] for key in _NAMES if isinstance(inner.get(key), str)), None)
        arguments = next((inner[key] for key in _ARGUMENTS if key in inner), None)
        if name is not None and arguments is not None:
            yield from _call(name, arguments)


def _call(name: str, arguments: Any) -> Iterator[ToolCall]:
    name = name.rpartition(".")[2]
    if isinstance(arguments, str) and arguments.startswith("{"):
        arguments = _decoded(arguments)
    if (answer := _ANSWERS.match(name)) is not None:
        value = _argument(arguments, _ANSWER_KEYS)
        if answer["final"] is None:
            yield ToolCall("answer", f"FINAL_VAR({value})")
        elif value is not None:
            yield ToolCall("answer", f"FINAL({value!r})" if isinstance(value, str) else f"FINAL({json.dumps(value)})")
    elif _RUNS.search(name) and isinstance(code := _argument(arguments, _CODE_KEYS), str) and code.strip():
        yield ToolCall("code", code)


def _argument(arguments: Any, keys: tuple[str, ...]) -> Any:
    """The argument under one of the keys, or the only one."""
    if not isinstance(arguments, dict):
        return arguments
    found = next((arguments[key] for key in keys if key in arguments), None)
    return next(iter(arguments.values())) if found is None and len(arguments) == 1 else found


def _decoded(text: str) -> Any:
    """The value of a JSON text; the text if it is none."""
    with suppress(ValueError, RecursionError):
        return json.loads(text, strict=False)
    return text
