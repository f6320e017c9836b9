"""Check a JSON Schema, and values against it, with `jsonschema`, though whoever wrote the schema may be hostile.

It may come out of a kernel: so nothing that it refers to is fetched, its patterns are run by an engine whose time is
linear, and a validation has a deadline.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import cache, partial
from itertools import islice
from typing import Any

MOST_CHARACTERS = 100_000
"""Of a schema."""

MOST_SECONDS = 2.0
"""Of one validation."""

MOST_PROBLEMS = 8
"""That are told of one value."""

_PROBLEM_CHARACTERS = 300
_deadline: ContextVar[float] = ContextVar("deadline")


class MisfitError(ValueError):
    """A value does not fit the schema. `problems`: what is wrong with it, a sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def checked(document: Any) -> dict[str, Any]:
    """The document, if it is a JSON Schema that can be used.

    Raises:
        ValueError: it is not; the message says why.
    """
    from jsonschema.exceptions import SchemaError

    try:
        size = len(json.dumps(document, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the schema is not JSON: {error}") from None
    if size > MOST_CHARACTERS:
        raise ValueError(f"the schema has {size:,} characters; it may have {MOST_CHARACTERS:,}")
    try:
        _validator_class(document).check_schema(document)
    except SchemaError as error:
        raise ValueError(f"the schema is no JSON Schema: {error.json_path}: {short(error.message)}") from None
    except RecursionError:
        raise ValueError("the schema is nested too deeply") from None
    _check_references(document)
    for part in parts(document):
        _check_part(part)
    return dict(document)


def _check_references(document: dict[str, Any]) -> None:
    """Refuse references that lead out of the schema, where the host will not go for a kernel, or nowhere."""
    from referencing import Registry, Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resource = Resource.from_contents(document, default_specification=DRAFT202012)
    resolver = Registry().with_resource("", resource).resolver()
    references = (part.get(name) for part in parts(document) for name in ("$ref", "$dynamicRef"))
    for reference in (r for r in references if isinstance(r, str)):
        if not reference.startswith("#"):
            raise ValueError(f"a reference must point into the schema itself, so begin with '#', not {reference!r}")
        try:
            resolver.lookup(reference)
        except Unresolvable:
            raise ValueError(f"the schema refers to {reference!r}, which it does not hold") from None


def _check_part(part: dict[str, Any]) -> None:
    """Refuse an expression that could keep the host busy."""
    if type(part.get("patternProperties")) is dict:
        raise ValueError("the schema uses patternProperties, which is not supported: use additionalProperties")
    if isinstance(part.get("pattern"), str):
        _expression(part["pattern"])


def parts(document: Any) -> Iterator[dict[str, Any]]:
    """Every object in the schema, from the top down."""
    waiting = [document]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def problems(document: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with a value, the first few."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    token = _deadline.set(time.monotonic() + MOST_SECONDS)
    validator = _guarded(_validator_class(document))(document, registry=Registry())
    try:
        return [f"{e.json_path}: {short(e.message)}" for e in islice(validator.iter_errors(value), MOST_PROBLEMS)]
    except Unresolvable as error:
        raise MisfitError([f"the schema refers to {error.ref!r}, which it does not hold"]) from None
    except RecursionError:
        raise MisfitError(["the schema refers to itself without end, or the answer is nested too deeply"]) from None
    finally:
        _deadline.reset(token)


def _validator_class(document: Any) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    return validator_for(document, default=Draft202012Validator)


@cache
def _guarded(validator: Any) -> Any:
    """The class of validators whose every step looks at the clock, and whose patterns take linear time."""
    from jsonschema.validators import extend

    steps = {**validator.VALIDATORS, "pattern": _pattern}
    return extend(validator, {name: partial(_timed, step) for name, step in steps.items()})


def _timed(step: Callable[..., Any], *about: Any) -> Any:
    if time.monotonic() > _deadline.get():
        raise MisfitError([f"validating it took more than {MOST_SECONDS:g} s: the schema is too complicated for it"])
    return step(*about)


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if isinstance(value, str) and not _expression(pattern).isinstance_python(value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _expression(pattern: str) -> Any:
    """A regular expression in Rust's engine: Python's own can be made to run for ever."""
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern))
    except SchemaError as error:
        why = str(error).rpartition("error: ")[2].strip()
        raise ValueError(f"the pattern {pattern!r} cannot be used: {why}") from None


def short(text: str) -> str:
    """A complaint without the middle, if it is long: it begins with the value that it is about."""
    return (
        text
        if len(text) <= _PROBLEM_CHARACTERS
        else f"{text[: _PROBLEM_CHARACTERS // 2]} … {text[-_PROBLEM_CHARACTERS // 2 :]}"
    )
