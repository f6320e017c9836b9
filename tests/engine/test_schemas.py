"""Answers by schema, in cells and of completions: objects, repairs, and what they cost. On a real kernel."""

from __future__ import annotations

import asyncio
import json

import pydantic
import pytest

from rlm import RLM, AnswerSchemaError, ConfigError, ScriptedLM, TokenLimitExceededError
from rlm_kernel.engine.budget import Limits
from rlm_kernel.schema.answer_schema import Schema
from rlm_kernel.trajectory import events as told
from rlm_kernel.types import Reply, Usage

CITY = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
ROME = '{"name": "Rome"}'


class City(pydantic.BaseModel):
    name: str


class Words:
    """An LM of before there were schemas."""

    backend, model, context_window = "own", "words", None

    def __init__(self, replies):
        self.replies, self.asked = iter(replies), []

    async def complete(self, messages, *, max_tokens=None, on_text=None):
        self.asked.append(messages)
        return Reply(next(self.replies), self.model, Usage(1, 1))

    async def close(self):
        pass


@pytest.fixture
def cell(run):
    """Run one cell, whose sub-calls get these replies, and give back what it showed and the models."""

    async def in_cell(code, *replies, sub=None, **config):
        root = ScriptedLM([f"```repl\nimport pydantic\nS = {CITY}\n{code}\n```", "FINAL(x)"], model="root")
        sub = sub or ScriptedLM(replies, model="sub")
        in_cell.completion = await run(root, others=(sub,), **config)
        return root.calls[1].prompt, sub

    return in_cell


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


# -- in a cell


async def test_an_answer_by_schema_is_an_object(cell):
    told_back, sub = await cell("llm_query('Which?', schema=S)['name']", f"```json\n{ROME}\n```")
    assert "'Rome'" in told_back
    assert sub.calls[0].schema == CITY
    assert sub.calls[0].prompt == "Which?"


async def test_a_pydantic_class_makes_instances(cell):
    code = (
        "class City(pydantic.BaseModel):\n    name: str\nc = llm_query('Which?', schema=City)\ntype(c).__name__, c.name"
    )
    assert "('City', 'Rome')" in (await cell(code, ROME))[0]


async def test_what_a_class_refuses_though_it_fits_is_a_query_error(cell):
    code = (
        "class City(pydantic.BaseModel):\n    name: str\n"
        "    @pydantic.field_validator('name')\n    def no(cls, v): raise ValueError('never')\n"
        "print(llm_query_batched(['a'], schema=City)[0][:9])\n"
        "llm_query('b', schema=City)"
    )
    told_back, _ = await cell(code, ROME, ROME)
    assert "Error: th" in told_back
    assert "QueryError" in told_back
    assert "its class refuses it" in told_back


async def test_a_batch_and_the_async_twins_take_one_schema(cell):
    code = (
        "print(llm_query_batched(['a', 'b'], schema=S))\n"
        "print(await allm_query('c', schema=S), await allm_query_batched(['d'], schema=S))"
    )
    sub = ScriptedLM(lambda messages: json.dumps({"name": messages[-1]["content"]}), model="sub")
    told_back, _ = await cell(code, sub=sub)
    assert "[{'name': 'a'}, {'name': 'b'}]" in told_back
    assert "{'name': 'c'} [{'name': 'd'}]" in told_back


async def test_a_schema_may_ask_for_a_list_a_number_or_a_text(cell):
    code = "[llm_query('q', schema={'type': kind}) for kind in ('array', 'number', 'string', 'null')]"
    assert "[[1], 2.5, 'x', None]" in (await cell(code, "[1]", "2.5", '"x"', "null"))[0]


async def test_a_model_without_a_mode_for_it_is_asked_in_words(cell):
    words = Words(["no", ROME])
    told_back, _ = await cell("llm_query('Which?', schema=S)", sub=words)
    assert "{'name': 'Rome'}" in told_back
    assert words.asked[0][0]["content"].startswith("Which?\n\nAnswer with JSON only")
    assert json.dumps(CITY) in words.asked[1][-1]["content"]


# -- repairs


async def test_a_reply_that_does_not_fit_is_repaired_in_the_same_conversation(cell, events):
    told_back, sub = await cell("llm_query('Which?', schema=S)", "Rome", '{"name": 5}', ROME)
    assert "{'name': 'Rome'}" in told_back
    assert [m["role"] for m in sub.calls[2].messages] == ["user", "assistant", "user", "assistant", "user"]
    assert "not JSON" in sub.calls[1].prompt
    assert "$.name: 5 is not of type 'string'" in sub.calls[2].prompt
    assert all(call.schema == CITY for call in sub.calls)


async def test_every_reply_is_told_before_it_is_used_and_counted(cell, events):
    replies = [Reply(text, "sub", Usage(10, 1, cost=0.5)) for text in ("no", "neither", ROME)]
    await cell("llm_query('Which?', schema=S)", *replies)
    first, second, answered = (e for e in events if isinstance(e, told.SubcallRejected | told.SubcallAnswered))
    assert [(e.attempt, e.reply.text) for e in (first, second)] == [(1, "no"), (2, "neither")]
    assert first.problems
    assert (answered.attempts, answered.text, answered.raw_text) == (3, ROME, ROME)
    assert (answered.usage.input_tokens, answered.usage.cost) == (30, 1.5)
    usage = cell.completion.usage_summary.model_usage_summaries["sub"]
    assert (usage.total_calls, usage.total_input_tokens, usage.total_cost) == (3, 30, 1.5)


async def test_an_answer_that_never_fits_fails_with_the_reply_and_what_is_wrong(cell, events):
    told_back, sub = await cell(
        "print(llm_query_batched(['a'], schema=S)[0])\nllm_query('b', schema=S)", *["I would rather not."] * 6
    )
    assert "Error: The answer of sub does not fit the schema" in told_back
    assert "QueryError" in told_back
    assert "'I would rather not.'" in told_back
    assert len(sub.calls) == 6
    assert len(of(events, told.SubcallRejected)) == 6
    assert [e.usage.output_tokens for e in of(events, told.SubcallAnswered)] == [12, 12]


async def test_a_repair_stops_at_a_limit_of_the_run(cell):
    replies = [Reply("no", "sub", Usage(100, 100))] * 3
    with pytest.raises(TokenLimitExceededError):
        await cell("llm_query('a', schema=S)", *replies, limits=Limits(max_tokens=300))


async def test_a_reply_cut_by_the_length_limit_is_told_so(cell):
    _, sub = await cell("llm_query('a', schema=S)", Reply('{"na', "sub", finish_reason="length"), ROME)
    assert "cut at the length limit" in sub.calls[1].prompt


# -- what is refused


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("llm_query('a', schema={'type': 'town'})", ["ValueError", "no JSON Schema"]),
        ("llm_query_batched(['a', 'b'], schema={'type': 'town'})", ["ValueError", "no JSON Schema"]),
        ("llm_query('a', schema={'$ref': 'http://127.0.0.1/x'})", ["ValueError", "point into the schema"]),
        ("llm_query('a', schema=5)", ["TypeError", "pydantic"]),
        ("llm_query('a', schema=str)", ["TypeError", "pydantic"]),
        ("llm_query('a', schema={'enum': {1, 2}})", ["TypeError", "not JSON serializable"]),
    ],
)
async def test_a_bad_schema_is_refused_in_the_cell_and_nobody_is_asked(cell, events, code, words):
    told_back, sub = await cell(code)
    assert [word for word in words if word not in told_back] == []
    assert sub.calls == []
    assert {(e.attempts, e.refused) for e in of(events, told.SubcallAnswered)} <= {(0, True)}


async def test_the_schema_is_told_to_the_readers(cell, events):
    await cell("llm_query('a', schema=S)", ROME)
    (started,) = of(events, told.SubcallStarted)
    assert started.schema == CITY


# -- children and rebuilds


async def test_a_child_answers_by_schema(cell, events):
    child = "```repl\nFINAL({'name': context})\n```"
    told_back, _ = await cell("rlm_query('Rome', schema=S, model='sub')", child, max_depth=2)
    assert "{'name': 'Rome'}" in told_back


async def test_without_depth_a_child_is_a_plain_call_by_schema(cell):
    told_back, sub = await cell("rlm_query('Which?', schema=S)", ROME)
    assert "{'name': 'Rome'}" in told_back
    assert sub.calls[0].schema == CITY


async def test_a_rebuilt_kernel_gets_the_recorded_objects_and_texts(run):
    root = ScriptedLM(
        [
            f"```repl\nS = {CITY}\na = llm_query('q', schema=S)\nb = llm_query('q')\n```",
            "```repl\nimport os; os._exit(1)\n```",
            "```repl\nFINAL([a, b])\n```",
        ]
    )
    sub = ScriptedLM([ROME, "words"], model="sub")
    assert (await run(root, others=(sub,))).response == "[{'name': 'Rome'}, 'words']"


# -- completions


@pytest.fixture
def complete(run, events):
    """A completion by a schema, with the root model's replies; the model is `complete.lm`."""

    async def completion(schema, *replies, **config):
        completion.lm = ScriptedLM(replies)
        return await run(completion.lm, schema=Schema.of(schema), **config)

    return completion


@pytest.mark.parametrize(
    "reply",
    [
        "```repl\nFINAL({'name': 'Rome'})\n```",
        '```repl\nFINAL(\'{"name": "Rome"}\')\n```',
        "```repl\nx = {'name': 'Rome'}\nFINAL_VAR('x')\n```",
        "```repl\nx = {'name': 'Rome'}\n```\nFINAL_VAR(x)",
        "```repl\nanswer['content'], answer['ready'] = {'name': 'Rome'}, True\n```",
        "```repl\nimport pydantic\nclass City(pydantic.BaseModel):\n    name: str\nFINAL(City(name='Rome'))\n```",
    ],
)
async def test_the_answer_of_a_cell_is_an_object(complete, reply):
    completion = await complete(CITY, reply)
    assert (completion.parsed, completion.response) == ({"name": "Rome"}, ROME)


async def test_an_answer_in_words_is_json(complete):
    completion = await complete(CITY, "```repl\n1\n```", f"FINAL({ROME})")
    assert completion.parsed == {"name": "Rome"}


async def test_the_opening_tells_the_schema(complete):
    await complete(CITY, "```repl\nFINAL({'name': 'Rome'})\n```")
    assert json.dumps(CITY) in complete.lm.calls[0].prompt


@pytest.mark.parametrize(
    ("schema", "value"), [("integer", 7), ("array", [1, "a"]), ("string", "words"), ("number", 0.5)]
)
async def test_the_answer_may_be_any_json(complete, schema, value):
    completion = await complete({"type": schema}, f"```repl\nFINAL({value!r})\n```")
    assert completion.parsed == value
    assert json.loads(completion.response) == value


async def test_numbers_of_numpy_and_sets_are_json(complete):
    code = "```repl\nimport numpy\nFINAL({'a': numpy.float64(1.5), 'b': numpy.arange(2), 'c': {2, 1}})\n```"
    assert (await complete({}, code)).parsed == {"a": 1.5, "b": [0, 1], "c": [1, 2]}


async def test_an_answer_that_does_not_fit_is_told_with_the_output_and_the_run_goes_on(complete):
    wrong = "```repl\nprint('seen')\nFINAL({'name': 5})\n```\n```repl\nprint('not run')\n```"
    completion = await complete(CITY, wrong, "```repl\nFINAL({'name': 'Rome'})\n```")
    assert completion.parsed == {"name": "Rome"}
    again = complete.lm.calls[1].prompt
    assert "seen" in again
    assert "not run" not in again
    assert "$.name: 5 is not of type 'string'" in again


async def test_an_answer_that_was_not_taken_stands_in_no_way_of_the_next_blocks(complete):
    stuck = "```repl\nanswer['content'], answer['ready'] = 'no', True\n```"
    corrected = "```repl\nn = len(context)\n```\nNow the answer.\n```repl\nanswer['content'] = n\n```"
    completion = await complete({"type": "integer"}, stuck, corrected)
    assert (completion.parsed, len(complete.lm.calls)) == (12, 2)


async def test_an_answer_that_is_still_wrong_is_told_once_a_turn(complete):
    stuck = "```repl\nanswer['content'], answer['ready'] = 'no', True\n```"
    await complete({"type": "integer"}, stuck, "```repl\n1\n```\n```repl\n2\n```", "```repl\nFINAL(7)\n```")
    assert complete.lm.calls[2].prompt.count("'no' is not of type 'integer'") == 1


async def test_a_good_final_counts_beside_a_bad_answer_that_stayed_ready(complete):
    stuck = "```repl\nanswer['content'], answer['ready'] = 'no', True\n```"
    completion = await complete(CITY, stuck, "```repl\nFINAL({'name': 'Rome'})\n```")
    assert completion.parsed == {"name": "Rome"}


async def test_after_the_last_turn_the_model_is_asked_by_schema_and_repaired(complete, events):
    completion = await complete(CITY, "```repl\n1\n```", "Rome", ROME, max_iterations=1)
    assert completion.parsed == {"name": "Rome"}
    assert [call.schema for call in complete.lm.calls] == [None, CITY, CITY]
    assert "as JSON" in complete.lm.calls[1].prompt
    assert [e.reply.text for e in of(events, told.ModelReplied)] == ["```repl\n1\n```", "Rome", ROME]
    assert completion.usage_summary.total_calls == 3


async def test_an_answer_that_never_fits_is_an_error_with_the_last_reply(complete, events):
    with pytest.raises(AnswerSchemaError) as caught:
        await complete(CITY, "```repl\n1\n```", *["Rome"] * 3, max_iterations=1)
    assert caught.value.partial_answer == "Rome"
    assert caught.value.problems
    assert caught.value.usage.total_calls == 4


async def test_a_draft_is_a_better_partial_answer(complete):
    with pytest.raises(AnswerSchemaError) as caught:
        await complete(CITY, "```repl\nanswer['content'] = 'draft'\n```", *["Rome"] * 3, max_iterations=1)
    assert caught.value.partial_answer == "draft"


async def test_a_plain_completion_is_asked_by_schema(complete):
    completion = await complete(CITY, "no", ROME, max_depth=0)
    assert completion.parsed == {"name": "Rome"}
    assert [call.schema for call in complete.lm.calls] == [CITY, CITY]


# -- the API


def test_a_completion_takes_a_class_and_gives_an_instance():
    result = RLM(ScriptedLM(["```repl\nFINAL({'name': 'Rome'})\n```"])).completion("x", response_schema=City)
    assert result.parsed == City(name="Rome")
    assert json.loads(json.dumps(result.to_dict()))["parsed"] == {"name": "Rome"}


async def test_the_object_is_made_once_so_a_class_may_refuse_it_the_second_time():
    made = []

    class Once(pydantic.BaseModel):
        name: str

        @pydantic.field_validator("name")
        def is_new(cls, name):  # noqa: N805 (pydantic makes it a method of the class)
            if name in made:
                raise ValueError("taken")
            made.append(name)
            return name

    for n, reply in enumerate(["```repl\nFINAL({'name': '0'})\n```", '{"name": "1"}']):
        rlm = RLM(ScriptedLM([reply]), max_depth=1 - n)
        seen = [event async for event in rlm.stream("x", response_schema=Once)]
        assert seen[-1].completion.parsed.name == str(n)
    assert made == ["0", "1"]


def test_without_a_schema_nothing_is_parsed():
    result = RLM(ScriptedLM(["```repl\nFINAL({'name': 'Rome'})\n```"])).completion("x")
    assert (result.parsed, result.response) == (None, "{'name': 'Rome'}")
    assert "parsed" not in result.to_dict()


async def test_the_asynchronous_forms_take_it_too():
    rlm = RLM(ScriptedLM(["```repl\nFINAL({'name': 'Rome'})\n```"] * 2))
    assert (await rlm.acompletion("x", response_schema=CITY)).parsed == {"name": "Rome"}
    seen = [event async for event in rlm.stream("x", response_schema=CITY)]
    assert seen[-1].completion.parsed == {"name": "Rome"}
    assert seen[0].schema == CITY


@pytest.mark.parametrize("schema", [{"type": "town"}, "object", 5, {"$ref": "#/nowhere"}])
def test_a_bad_schema_is_a_config_error_before_anything_starts(schema):
    lm = ScriptedLM([])
    with pytest.raises(ConfigError, match="response_schema"):
        RLM(lm).completion("x", response_schema=schema)
    assert lm.calls == []


async def test_many_completions_of_one_rlm_keep_their_schemas():
    lm = ScriptedLM(lambda m: "```repl\nFINAL(context)\n```")
    rlm = RLM(lm)
    kinds = [None, {"type": "string"}, None, {"type": "string"}]
    results = await asyncio.gather(*(rlm.acompletion("x", response_schema=kind) for kind in kinds))
    assert [result.response for result in results] == ["x", '"x"', "x", '"x"']
