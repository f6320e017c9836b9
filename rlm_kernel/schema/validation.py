"""Validate JSON Schemas, and values against them, with `jsonschema`. The author of a schema may be hostile.

A schema may come out of a kernel. So no reference is fetched, patterns are run by an engine of linear time, and both
the check of the schema and each validation have a deadline.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from itertools import islice
from typing import Any

from rlm_kernel.text import clip

MAX_CHARACTERS = 100_000
"""Of a schema."""

MAX_SECONDS = 2.0
"""Of one validation."""

MAX_CHECK_SECONDS = 10.0
"""Of one check of a schema, of which a thousand parts take a second."""

MAX_PROBLEMS = 8
"""The most problems that are listed for one value."""

_PROBLEM_CHARACTERS = 300
_SORTED = json.JSONEncoder(sort_keys=True)
_deadline: ContextVar[float] = ContextVar("deadline")


class MisfitError(ValueError):
    """A value does not fit the schema. `problems`: what is wrong with it, a sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def check_schema(document: Any) -> dict[str, Any]:
    """The document, if it is a JSON Schema that can be used.

    Raises:
        ValueError: it is not; the message says why.
    """
    try:
        size = len(json.dumps(document, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the schema is not JSON: {error}") from None
    if size > MAX_CHARACTERS:
        raise ValueError(f"the schema has {size:,} characters; it may have {MAX_CHARACTERS:,}")
    guarded = _guard(_validator_class(document))
    try:
        with _clock(MAX_CHECK_SECONDS):
            _check_form(document, guarded)
            _check_references(document)
            for part in parts(document):
                _check_part(part)
    except _LateError:
        late = f"checking it took more than {MAX_CHECK_SECONDS:g} s"
        raise ValueError(f"the schema is too complicated: {late}") from None
    except RecursionError:
        raise ValueError("the schema is nested too deeply") from None
    return dict(document)


def _check_form(document: dict[str, Any], guarded: Any) -> None:
    """Refuse what is no schema. The validator's own `check_schema` looks at no clock."""
    form = guarded(guarded.META_SCHEMA, format_checker=guarded.FORMAT_CHECKER)
    for error in form.iter_errors(document):
        raise ValueError(f"the schema is no JSON Schema: {error.json_path}: {shorten(error.message)}")


def _check_references(document: dict[str, Any]) -> None:
    """Refuse references that lead out of the schema, where the host will not go for a kernel, or nowhere."""
    from referencing import Registry, Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    references = (part.get(name) for part in parts(document) for name in ("$ref", "$dynamicRef"))
    texts = [reference for reference in references if isinstance(reference, str)]
    if not texts:
        return
    resource = Resource.from_contents(document, default_specification=DRAFT202012)
    resolver = Registry().with_resource("", resource).crawl().resolver()
    for reference in texts:
        _check_deadline()
        if not reference.startswith("#"):
            raise ValueError(f"a reference must point into the schema itself, so begin with '#', not {reference!r}")
        try:
            is_held = isinstance(resolver.lookup(reference).contents, dict | bool)
        except (Unresolvable, TypeError, ValueError):
            is_held = False
        if not is_held:
            raise ValueError(f"the schema refers to {reference!r}, which it does not hold")


def _check_part(part: dict[str, Any]) -> None:
    """Refuse an expression that could keep the host busy."""
    _check_deadline()
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

    validator = _guard(_validator_class(document))(document, registry=Registry())
    try:
        with _clock(MAX_SECONDS):
            return [f"{e.json_path}: {shorten(e.message)}" for e in islice(validator.iter_errors(value), MAX_PROBLEMS)]
    except _LateError:
        late = f"validating it took more than {MAX_SECONDS:g} s: the schema is too complicated for it"
        raise MisfitError([late]) from None
    except ArithmeticError as error:
        raise MisfitError([f"a number in it is too large or too small for the schema: {error}"]) from None
    except Unresolvable as error:
        raise MisfitError([f"the schema refers to {error.ref!r}, which it does not hold"]) from None
    except RecursionError:
        raise MisfitError(["the schema refers to itself without end, or the answer is nested too deeply"]) from None


def _validator_class(document: dict[str, Any]) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    named = isinstance(document.get("$schema"), str)
    return validator_for(document, default=Draft202012Validator) if named else Draft202012Validator


@cache
def _guard(validator: Any) -> Any:
    """The class of validators whose every step looks at the clock and takes linear time."""
    from jsonschema.validators import extend

    steps = {**validator.VALIDATORS, "pattern": _pattern, "uniqueItems": _unique_items}
    guarded = extend(validator, {name: partial(_run_timed, step) for name, step in steps.items()})
    plain = guarded.evolve

    def evolve(self: Any, **changes: Any) -> Any:
        """For a part, which may name a `$schema` of its own: that stands for a class that is not guarded."""
        part = changes.get("schema")
        if isinstance(part, dict) and "$schema" in part:
            changes["schema"] = {name: value for name, value in part.items() if name != "$schema"}
        return plain(self, **changes)

    guarded.evolve = evolve
    return guarded


class _LateError(Exception):
    """The deadline is over."""


@contextmanager
def _clock(seconds: float) -> Iterator[None]:
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def _check_deadline() -> None:
    if time.monotonic() > _deadline.get():
        raise _LateError


def _run_timed(step: Callable[..., Any], *about: Any) -> Any:
    _check_deadline()
    return step(*about)


def _unique_items(_: Any, unique: Any, value: Any, __: Any) -> Iterator[Any]:
    """The validator's own step compares each item with each."""
    from jsonschema.exceptions import ValidationError

    seen: set[str] = set()
    for item in value if unique and isinstance(value, list) else ():
        _check_deadline()
        text = _SORTED.encode(_canonical(item))
        if text in seen:
            yield ValidationError(f"{value!r} has non-unique elements")
            return
        seen.add(text)


def _canonical(value: Any) -> Any:
    """A value in the one form of all that JSON Schema calls equal: 1.0 is 1, and true is not."""
    if isinstance(value, dict):
        return {name: _canonical(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


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


def shorten(text: str) -> str:
    """A complaint without the middle, if it is long: it begins with the value that it is about."""
    return clip(text, _PROBLEM_CHARACTERS, head=0.5, gap=" … ")
