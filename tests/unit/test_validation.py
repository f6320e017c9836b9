"""What a check of a schema and a validation may take, and which values are equal, whoever wrote the schema."""

from __future__ import annotations

import pytest

from rlm_kernel.schema import validation
from rlm_kernel.schema.validation import MisfitError, check_schema, problems

DRAFT_4 = "http://json-schema.org/draft-04/schema#"
RUNAWAY = "^(a+)+$"


@pytest.mark.parametrize(
    "items",
    [[1, True], [0, False], [1, "1"], [1.5, 1], [[1], [True]], [{"a": 1}, {"a": True}], [[], {}], [10**400, 1e300]],
)
def test_items_that_json_calls_different_are_unique(items):
    assert problems({"uniqueItems": True}, items) == []


@pytest.mark.parametrize(
    "items", [[1, 1.0], [0.0, -0.0], [[1, 2], [1.0, 2]], [{"a": 1, "b": 2}, {"b": 2, "a": 1}], [None, 2, None]]
)
def test_items_that_json_calls_equal_are_not_unique(items):
    (problem,) = problems({"uniqueItems": True}, items)
    assert problem.endswith("has non-unique elements")
    assert problems({"uniqueItems": False}, items) == []


def test_many_items_are_compared_in_one_pass(monkeypatch):
    monkeypatch.setattr(validation, "MAX_SECONDS", 60)
    assert problems({"uniqueItems": True}, [{"i": i} for i in range(20_000)]) == []


def test_the_items_of_a_list_are_compared_before_the_deadline(monkeypatch):
    monkeypatch.setattr(validation, "MAX_SECONDS", 0)
    with pytest.raises(MisfitError, match="too complicated"):
        problems({"uniqueItems": True}, [1, 2])


@pytest.mark.parametrize("schema", [{}, {"$schema": DRAFT_4, "enum": [1, 2]}])
def test_a_schema_whose_check_takes_too_long_is_refused(monkeypatch, schema):
    monkeypatch.setattr(validation, "MAX_CHECK_SECONDS", -1)
    with pytest.raises(ValueError, match="the schema is too complicated"):
        check_schema(schema)


def test_a_part_with_a_schema_of_its_own_is_guarded_like_the_whole():
    document = check_schema({"properties": {"a": {"$schema": DRAFT_4, "pattern": RUNAWAY}}})
    (problem,) = problems(document, {"a": "a" * 5000 + "!"})
    assert "does not match" in problem


def test_a_number_that_cannot_be_counted_with_is_a_misfit():
    with pytest.raises(MisfitError, match="too large"):
        problems({"multipleOf": 0.01}, 10**400)


@pytest.mark.parametrize("reference", ["#/const", "#/const/x", "#/minLength/x", "#/title/x"])
def test_a_reference_to_what_is_no_schema_is_refused(reference):
    with pytest.raises(ValueError, match="does not hold"):
        check_schema({"$ref": reference, "const": 5, "minLength": 1, "title": "t"})


@pytest.mark.parametrize("named", [5, [], {}, None])
def test_a_schema_that_names_its_own_schema_wrongly_is_refused(named):
    with pytest.raises(ValueError, match="no JSON Schema"):
        check_schema({"$schema": named})
