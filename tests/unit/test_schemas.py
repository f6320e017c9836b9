"""What a schema may be, how a model's words are read by it, and what a hostile one cannot do."""

from __future__ import annotations

import json
import re

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.schema import validation
from rlm_kernel.schema.answer_schema import Schema, add_instructions, is_closed, is_strict
from rlm_kernel.schema.validation import MisfitError

CITY = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"type": "integer", "minimum": 0}},
    "required": ["name", "people"],
    "additionalProperties": False,
}
ROME = {"name": "Rome", "people": 3}


class City(pydantic.BaseModel):
    name: str
    people: int = 0

    @pydantic.field_validator("people")
    @classmethod
    def _even(cls, people):
        if people % 2:
            raise ValueError("people come in pairs")
        return people


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Rome", "people": 3}',
        '\n  {"people": 3, "name": "Rome"}\n',
        '```json\n{"name": "Rome", "people": 3}\n```',
        'Here it is:\n```\n{"name": "Rome", "people": 3}\n```\nDone.',
        '<think>{"name": ...</think>\n{"name": "Rome", "people": 3}',
    ],
)
def test_json_is_read_alone_or_in_a_fence(text):
    assert Schema.of(CITY).read(text) == ROME


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Rome has 3 people.", "not JSON"),
        ("", "not JSON"),
        ('{"name": "Rome", "people": NaN}', "NaN is not JSON"),
        ('{"name": "Rome"}', "'people' is a required property"),
        ('{"name": "Rome", "people": "3"}', "$.people: '3' is not of type 'integer'"),
        ('{"name": "Rome", "people": 3, "x": 1}', "'x' was unexpected"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_does_not_fit_says_where_and_why(text, problem):
    with pytest.raises(MisfitError, match=re.escape(problem)):
        Schema.of(CITY).read(text)


def test_a_reply_that_was_cut_says_so():
    with pytest.raises(MisfitError, match="cut at the length limit"):
        Schema.of(CITY).read('{"name": "Ro', whole=False)


def test_few_problems_are_told_and_long_values_are_cut():
    with pytest.raises(MisfitError) as caught:
        Schema.of({"type": "array", "items": {"type": "integer"}}).read(json.dumps(["x" * 1000] * 50))
    assert len(caught.value.problems) == validation.MAX_PROBLEMS
    assert len(str(caught.value)) < 4000


def test_a_class_makes_the_object_and_its_complaints_are_problems():
    schema = Schema.of(City)
    assert schema.fit({"name": "Rome", "people": 2}) == City(name="Rome", people=2)
    with pytest.raises(MisfitError, match="\\$.people: Value error, people come in pairs"):
        schema.fit(ROME)


@pytest.mark.parametrize(
    ("schema", "text", "as_json", "answer"),
    [
        (CITY, str(ROME), json.dumps(ROME), ROME),
        (CITY, json.dumps(ROME), None, ROME),
        ({"type": "string"}, "plain words", None, "plain words"),
        ({"type": "string"}, "true", None, "true"),
        ({"type": "integer"}, "7", "7", 7),
        ({"type": "integer"}, "7", None, 7),
        ({"type": ["integer", "string"]}, "7", None, 7),
    ],
)
def test_an_answer_is_taken_as_a_value_as_json_or_as_text(schema, text, as_json, answer):
    assert json.loads(Schema.of(schema).take(text, as_json)) == answer


def test_an_answer_that_fits_in_no_way_says_what_is_wrong_with_the_value():
    with pytest.raises(MisfitError, match="is not of type 'integer'"):
        Schema.of({"type": "integer"}).take('"x"')


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_what_is_taken_is_json_of_the_same_value(value):
    assert json.loads(Schema.of({}).take(str(value), json.dumps(value))) == value


# -- what is refused


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "text"}, "no JSON Schema: $.type"),
        ({"type": "string", "pattern": "("}, "not a 'regex'"),
        ({"properties": 5}, "no JSON Schema"),
        ({"$ref": "https://example.com/schema.json"}, "point into the schema itself"),
        ({"$ref": "file:///etc/passwd"}, "point into the schema itself"),
        ({"$ref": "#/$defs/nowhere"}, "does not hold"),
        ({"patternProperties": {"(a+)+$": {}}}, "patternProperties"),
        ({"pattern": "(?=a)"}, "look-around"),
        ({"const": float("nan")}, "not JSON"),
        ({"const": {1, 2}}, "not JSON"),
        ({"description": "x" * 200_000}, "200,019 characters"),
    ],
)
def test_a_schema_that_cannot_be_used_says_why(schema, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        Schema.of(schema)


@pytest.mark.parametrize("given", [5, "object", ["a"], str, None])
def test_what_is_no_schema_is_a_type_error(given):
    with pytest.raises(TypeError, match="JSON Schema"):
        Schema.of(given)


def test_a_pattern_that_would_run_for_ever_does_not():
    with pytest.raises(MisfitError, match="does not match"):
        Schema.of({"pattern": "^(a+)+$"}).fit("a" * 5000 + "!")


def test_a_schema_that_takes_exponential_time_is_given_up(monkeypatch):
    monkeypatch.setattr(validation, "MAX_SECONDS", 0.05)
    doubled = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)}
    schema = Schema.of({"$ref": "#/$defs/d0", "$defs": {**doubled, "d60": {"type": "integer"}}})
    with pytest.raises(MisfitError, match="too complicated"):
        schema.fit("x")


def test_a_schema_that_refers_to_itself_without_end_is_given_up():
    with pytest.raises(MisfitError, match="without end"):
        Schema.of({"$ref": "#"}).fit(1)


def test_a_schema_may_refer_to_itself():
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}}, "additionalProperties": False}
    assert Schema.of(tree).read('{"left": {"left": {}}}') == {"left": {"left": {}}}


# -- what providers are told


def test_a_model_is_told_in_words_after_the_last_message():
    told = add_instructions([{"role": "user", "content": "one"}, {"role": "user", "content": "two"}], CITY)
    assert told[0]["content"] == "one"
    assert told[1]["content"].startswith("two\n\nAnswer with JSON only")
    assert told[1]["content"].endswith(json.dumps(CITY))


@pytest.mark.parametrize(
    ("schema", "strict", "closed"),
    [
        (CITY, True, True),
        (City.model_json_schema(), False, True),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, False, False),
        ({"type": "object"}, False, False),
        ({"type": "array", "items": CITY}, True, True),
        ({**CITY, "additionalProperties": True}, False, False),
        ({"const": {"type": "object", "properties": {"x": 1}, "required": True}}, True, True),
        ({"enum": [{"properties": {}}], "default": {"type": "object"}, "examples": [{"required": [{}]}]}, True, True),
        ({"x-note": {"type": "object", "properties": [{}], "required": [{}]}}, False, False),
        ({**CITY, "properties": {"default": {"type": "object"}}, "required": ["default"]}, False, False),
        ({**CITY, "properties": {"properties": CITY}, "required": ["properties"]}, True, True),
    ],
)
def test_the_modes_that_a_schema_suits(schema, strict, closed):
    assert (is_strict(schema), is_closed(schema)) == (strict, closed)


def test_an_answer_that_is_no_json_says_both_what_it_is_not_and_what_it_should_be():
    with pytest.raises(MisfitError, match=r"not JSON.*'Rome' is not of type 'integer'"):
        Schema.of({"type": "integer"}).take("Rome")
