"""Answers by JSON Schema: the instructions for the model, reading its reply, and sending back what does not fit.

`validation` decides what fits; this module holds the texts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.errors import AnswerSchemaError
from rlm_kernel.parsing import only_block, without_thinking
from rlm_kernel.schema.validation import MAX_PROBLEMS, MisfitError, check_schema, problems, shorten
from rlm_kernel.text import not_blank
from rlm_kernel.types import Message, Reply

MAX_REPAIRS = 2
"""How often a reply that does not fit is sent back with its problems."""

_DATA = frozenset({"const", "default", "enum", "examples"})
"""Keywords whose values are data, even when they look like a schema."""

_BY_NAME = frozenset({"$defs", "definitions", "dependentSchemas", "properties"})
"""Keywords whose values hold schemas by name, and a name may be that of a keyword."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON Schema that was checked.

    Attributes:
        document: the schema.
        build: makes the object that the user gets; raises ValueError for a value that it refuses.
    """

    document: dict[str, Any]
    build: Callable[[Any], Any] | None = None

    @classmethod
    def of(cls, given: Any) -> Schema:
        """The schema of a dict, or of a pydantic model class.

        Raises:
            TypeError: it is neither.
            ValueError: it is not a usable JSON Schema; the message says why.
        """
        if not isinstance(given, dict) and callable(getattr(given, "model_json_schema", None)):
            return cls(check_schema(given.model_json_schema()), given.model_validate)
        if not isinstance(given, dict):
            raise TypeError(f"a schema is a JSON Schema (a dict) or a pydantic model class, not {type(given).__name__}")
        return cls(check_schema(given))

    def read(self, text: str, *, whole: bool = True) -> Any:
        """The value in a model's reply: JSON, alone or in one fenced block.

        Args:
            text: the reply.
            whole: False if it was cut by the length limit.

        Raises:
            MisfitError: there is no JSON in it, or it does not fit.
        """
        value = _json(text, whole=whole)
        self.fit(value)
        return value

    def fit(self, value: Any) -> Any:
        """The object that the user gets for a JSON value.

        Raises:
            MisfitError: it does not fit.
        """
        if found := problems(self.document, value):
            raise MisfitError(found)
        if self.build is None:
            return value
        try:
            return self.build(value)
        except ValueError as error:
            raise MisfitError(_complaints(error)) from error

    def take(self, text: str, as_json: str | None = None) -> str:
        """An answer of a cell or of a reply, as JSON.

        Args:
            text: the answer. If it is not the JSON of a value that fits, the text itself may be such a value.
            as_json: the JSON of a value that is not text, from the kernel, or None.

        Raises:
            MisfitError: it does not fit.
        """
        if as_json is not None:
            return text_of(self.read(as_json))
        values: list[Any] = [text]
        complaints: list[str] = []
        try:
            values.insert(0, _json(text))
        except MisfitError as misfit:
            complaints += misfit.problems
        for value in values:
            try:
                self.fit(value)
            except MisfitError as misfit:
                complaints += misfit.problems if value is values[0] else ()
            else:
                return text_of(value)
        raise MisfitError(complaints)


OnMisfit = Callable[[Reply, MisfitError], None]
"""Called with each reply that does not fit, and with its problems."""


@dataclass(slots=True)
class Repairs:
    """The repairs of one answer. Ask the model with `added` until `read` returns the answer.

    Attributes:
        schema: what the answer has to fit; None: any text is an answer.
        on_misfit: see `OnMisfit`.
        added: messages for the end of the conversation: earlier replies, and what is wrong with them.
    """

    schema: Schema | None
    on_misfit: OnMisfit = lambda *_: None
    added: list[Message] = field(default_factory=list)

    async def read(self, reply: Reply) -> str | None:
        """The answer in a reply, as JSON where there is a schema. None: it does not fit, ask again.

        Raises:
            AnswerSchemaError: it does not fit, and `MAX_REPAIRS` repairs were asked for already.
        """
        if self.schema is None:
            return reply.text
        try:
            # In a thread: importing the validator takes a while, and so may a schema.
            value = await asyncio.to_thread(self.schema.read, reply.text, whole=reply.finish_reason != "length")
        except MisfitError as misfit:
            self.on_misfit(reply, misfit)
            if len(self.added) == 2 * MAX_REPAIRS:
                raise AnswerSchemaError(model=reply.model, problems=misfit.problems, reply=reply.text) from None
            self.added.append({"role": "assistant", "content": not_blank(reply.text)})
            self.added.append({"role": "user", "content": request_for_repair(misfit)})
            return None
        return text_of(value)


def add_instructions(messages: Sequence[Message], schema: dict[str, Any]) -> list[Message]:
    """The conversation with the schema in its last message, for a provider without a mode for it."""
    *before, last = messages
    content = f"{last['content']}\n\nAnswer with JSON only, no words around it. It must fit this JSON Schema:\n"
    return [*before, {**last, "content": content + text_of(schema)}]


def request_for_repair(misfit: MisfitError) -> str:
    """The message to a model whose reply did not fit."""
    listed = "\n".join(f"- {problem}" for problem in misfit.problems)
    return f"That does not fit the schema:\n{listed}\nGive the whole answer again, corrected: JSON only."


def is_strict(schema: Any) -> bool:
    """Whether every object declares all its names and requires them, as OpenAI's strict mode demands."""
    return all(
        _texts(part.get("required")) == part["properties"].keys() and part.get("additionalProperties") is False
        for part in _objects(schema)
    )


def is_closed(schema: Any) -> bool:
    """Whether no object may hold undeclared names. Only then a mode without undeclared names loses nothing."""
    return all(part["properties"] and not part.get("additionalProperties") for part in _objects(schema))


def text_of(value: Any) -> str:
    """A value as JSON that a model reads easily."""
    return json.dumps(value, ensure_ascii=False)


# -- reading


def _json(text: str, *, whole: bool = True) -> Any:
    text = without_thinking(text).strip()
    block = only_block(text)
    try:
        return json.loads(text if block is None else block, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        cut = "" if whole else " It was cut at the length limit: write less."
        raise MisfitError([f"it is not JSON ({error}).{cut}"]) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _complaints(error: ValueError) -> list[str]:
    """Why a class refuses a value; pydantic lists each part of it."""
    each = error.errors() if hasattr(error, "errors") else []
    found = [f"$.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in each]
    return [shorten(words) for words in found or [str(error)]][:MAX_PROBLEMS]


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every part that describes an object. A part without properties describes any dict."""
    for part in _subschemas(schema):
        properties = part.get("properties")
        if part.get("type") == "object" or isinstance(properties, dict):
            yield {**part, "properties": properties if isinstance(properties, dict) else {}}


def _subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and the schemas in it, without data and names."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            yield part
            for keyword, value in part.items():
                if keyword in _BY_NAME and isinstance(value, dict):
                    waiting += value.values()
                elif keyword not in _DATA:
                    waiting.append(value)


def _texts(names: Any) -> set[str]:
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()
