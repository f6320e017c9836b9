"""Each row of the table of oddities, with the clients of OpenAI and Anthropic, streamed and not."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import API_KEY, MODEL, Fails, LoopbackProvider, Says, Sends
from oddities import REFUSALS, REPLIES, table
from remote_clients import anthropic_lm, openai_lm

from rlm_kernel._async import Job
from rlm_kernel.clients.anthropic import MessageBuilder
from rlm_kernel.clients.base import BaseLM
from rlm_kernel.clients.chat_format import ChatReplyBuilder
from rlm_kernel.clients.direct import get_client
from rlm_kernel.clients.refused_parts import ALTERNATION, STREAM, SYSTEM, USER_LAST, refused_part
from rlm_kernel.clients.responses import Inputs, ResponseBuilder
from rlm_kernel.engine.billing import ModelCalls
from rlm_kernel.engine.budget import Ledger, Limits
from rlm_kernel.engine.config import Models
from rlm_kernel.engine.subcalls import SubCalls
from rlm_kernel.errors import LMError, NonAnswerError, TokenLimitExceededError
from rlm_kernel.trajectory.events import SubcallAnswered
from rlm_kernel.types import Query, Slot, UsageMeter

QUESTION = [{"role": "user", "content": "Which?"}]
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
LIMIT = 50
"""Tokens of a reply, at most."""

CLIENTS = {"openai": openai_lm, "anthropic": anthropic_lm}


@pytest.fixture(scope="module")
def server():
    with LoopbackProvider() as loopback:
        yield loopback


@pytest.fixture(params=["whole", "streamed"])
def way(request):
    return request.param


@pytest.fixture
async def client(server):
    made = []

    def make(api, script, **options):
        server.script = script if callable(script) else [script]
        server.requests.clear()
        made.append(CLIENTS[api](MODEL, API_KEY, server.base_url, backend=api, timeout=20, max_retries=0, **options))
        return made[-1]

    yield make
    for lm in made:
        await lm.close()


class Streamed(BaseLM):
    """Streams every reply of another client."""

    def __init__(self, lm):
        self.backend, self.model, self._lm = lm.backend, lm.model, lm

    async def complete(self, messages, *, max_tokens=None, on_text=None, schema=None):
        return await self._lm.complete(messages, max_tokens=max_tokens, on_text=on_text or [].append, schema=schema)


class Asked:
    """The sub-calls of a run without a kernel. `events` are its events."""

    def __init__(self, lm, **limits):
        self.events, ledger = [], Ledger(Limits(**limits))
        self._calls = SubCalls(
            models=Models(lm),
            calls=ModelCalls(ledger, UsageMeter()),
            emit=self.events.append,
            reply_tokens=LIMIT,
            max_children=1,
            child_turn=nullcontext,
            start_child=None,
            on_limit=lambda: None,
            tools={},
            budget=dict,
        )

    async def answer(self):
        query = Query("q1", "llm_query", ("Which?",), slots=(Slot(1, "key", 0),))
        (answer,) = await self._calls.answer(query)
        return answer

    @property
    def usage(self):
        return next(event.usage for event in self.events if isinstance(event, SubcallAnswered))


def rows(table, apis):
    return [
        pytest.param(row, api, id=f"{api}-{name}")
        for row, name in table
        for api in ("openai", "anthropic")
        if apis(row, api)
    ]


ODD = rows([(row, row.sends) for row in REPLIES], lambda row, api: getattr(row, api) is not None)
REFUSED = rows([(row, row.refuses) for row in REFUSALS], lambda row, api: api in row.apis)


@pytest.mark.parametrize(("row", "api"), ODD)
async def test_a_reply_is_read(client, row, api, way):
    lm = client(api, getattr(row, api))
    reply = await lm.complete(QUESTION, max_tokens=LIMIT, on_text=[].append if way == "streamed" else None)
    assert (reply.text, reply.finish_reason) == (row.text, row.reason)


@pytest.mark.parametrize(("row", "api"), ODD)
async def test_a_sub_call_never_takes_a_non_answer(client, row, api, way):
    lm = client(api, getattr(row, api))
    answer = await Asked(Streamed(lm) if way == "streamed" else lm).answer()
    if row.error is None:
        assert (answer.text, answer.error) == (row.answer, None)
    else:
        assert row.error in answer.error
        assert answer.text == row.partial
        assert repr(MODEL) in answer.error


@pytest.mark.parametrize(("row", "api"), REFUSED)
async def test_what_is_refused_is_left_out_for_the_life_of_the_client(client, server, row, api, way):
    on_text = [].append if way == "streamed" else None
    lm = client(api, row.script, sampling_args=dict(row.sampling))
    expected = 0 if row.streamed and on_text is None else 1
    for _ in range(2):
        reply = await lm.complete(list(row.messages), on_text=on_text, schema=SCHEMA if row.schema else None)
        assert reply.text == '{"n": 42}'
    assert len(server.requests) == 2 + expected
    assert [bool(row.has(request)) for request in server.requests] == [True] * expected + [False] * 2


async def test_another_schema_is_sent_after_one_that_was_too_complex(client, server):
    steps = iter([Fails(400, "Invalid schema for response_format 'answer': 'oneOf' is not permitted."), "1", "2"])
    lm = client("openai", lambda _: next(steps))
    await lm.complete(QUESTION, schema=SCHEMA)
    await lm.complete(QUESTION, schema={"type": "object"})
    assert ["response_format" in request.body for request in server.requests] == [True, False, True]


@pytest.mark.parametrize("api", CLIENTS)
async def test_a_wrong_value_of_a_sampling_argument_is_an_error(client, server, api):
    lm = client(api, lambda _: Fails(400, "temperature must be between 0 and 2"), sampling_args={"temperature": 9})
    with pytest.raises(LMError, match="between 0 and 2"):
        await lm.complete(QUESTION)
    assert len(server.requests) == 1


@pytest.mark.parametrize("api", CLIENTS)
async def test_usage_that_is_not_reported_is_estimated_and_holds_max_tokens(client, api, way):
    lm = client(api, lambda _: Says("word " * 50, usage=None))
    asked = Asked(Streamed(lm) if way == "streamed" else lm, max_tokens=1_500)
    await asked.answer()
    assert asked.usage.estimated_tokens == asked.usage.input_tokens + asked.usage.output_tokens > 0
    for _ in range(2):
        await asked.answer()
    with pytest.raises(TokenLimitExceededError, match="are an estimate"):
        await asked.answer()


async def test_a_client_of_ones_own_estimates_usage_and_refuses_a_reply_without_text(server):
    server.script = [Says("42", usage=None), Says(None)]
    client = get_client("openai", {"model_name": MODEL, "api_key": API_KEY, "base_url": server.base_url})
    assert await client.acompletion("Which?") == "42"
    assert client.get_last_usage().estimated_tokens > 0
    with pytest.raises(NonAnswerError, match="holds no text"):
        await client.acompletion("Which?")
    await Job(client.close()).wait_async()


async def test_a_stream_that_breaks_off_carries_the_text_so_far(client):
    lm = client("openai", Says("one two three", breaks_after=2))
    with pytest.raises(LMError) as caught:
        await lm.complete(QUESTION, on_text=[].append)
    assert caught.value.partial_answer == "one two "


def stream(*chunks):
    events = "".join(f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n" for chunk in chunks)
    return Sends(f"{events}data: [DONE]\n\n".encode(), content_type="text/event-stream")


def whole(usage=None, **message):
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return Sends(json.dumps({"choices": [choice], "usage": usage}).encode())


def piece(delta, reason=None, **choice):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason, **choice}]}


STREAMS = {
    "a whole reply instead of a stream": whole(content="42"),
    "an empty event": stream("", piece({"content": "42"}, "stop")),
    "the whole message beside each piece": stream(
        piece({"content": "4"}, message={"content": "4"}), piece({"content": "2"}, "stop", message={"content": "42"})
    ),
    "the whole message at the end": stream(piece({"content": "42"}), piece({}, "stop", message={"content": "42"})),
    "a message instead of pieces": stream({"choices": [{"message": {"content": "42"}, "finish_reason": "stop"}]}),
    "a text of the older API": stream({"choices": [{"text": "42", "finish_reason": "stop"}]}),
    "only a role first": stream(piece({"role": "assistant", "content": None}), piece({"content": "42"}, "stop")),
}


@pytest.mark.parametrize("sends", STREAMS)
async def test_a_stream_is_read(client, sends):
    heard = []
    reply = await client("openai", STREAMS[sends]).complete(QUESTION, on_text=heard.append)
    assert (reply.text, "".join(heard), reply.finish_reason) == ("42", "42", "stop")


async def test_json_that_is_marked_as_text_is_read(client):
    lm = client("openai", replace(whole(content="42"), content_type="text/plain"))
    assert (await lm.complete(QUESTION)).text == "42"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": "9", "completion_tokens": 2.0}, (9, 2, 0)),
        ({"input_tokens": 9, "output_tokens": 2}, (9, 2, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 8}, (9, 2, 8)),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 80}}, (9, 2, 9)),
        ({"prompt_tokens": 10**30, "completion_tokens": 2}, (0, 0, 0)),
    ],
)
async def test_usage_is_read_in_many_forms_or_not_at_all(client, usage, expected):
    used = (await client("openai", whole(usage, content="42")).complete(QUESTION)).usage
    assert (used.input_tokens, used.output_tokens, used.cached_tokens) == expected


async def test_empty_usage_at_the_end_of_a_stream_takes_nothing_back(client):
    chunk = piece({"content": "42"}, "stop") | {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    lm = client("openai", stream(chunk, {"choices": [], "usage": {}}))
    assert (await lm.complete(QUESTION, on_text=[].append)).usage.input_tokens == 3


@pytest.mark.parametrize("api", CLIENTS)
async def test_an_error_with_status_200_is_named(client, api):
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    with pytest.raises(LMError, match="Overloaded"):
        await client(api, Sends(json.dumps(body).encode())).complete(QUESTION)


@pytest.mark.parametrize("body", [{"object": "error", "message": "not loaded"}, {"detail": "not loaded"}])
async def test_a_message_with_status_200_is_named(client, body):
    with pytest.raises(LMError, match="not loaded"):
        await client("openai", Sends(json.dumps(body).encode())).complete(QUESTION)


FIELDS = [
    "model",
    "messages",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "logit_bias",
    "response_format",
    "stream_options",
]
MESSAGES = {
    "Developer instruction is not enabled for models/gemma-3-27b-it": SYSTEM,
    "Unsupported value: 'messages[0].role' does not support 'system' with this model.": SYSTEM,
    "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant": USER_LAST,
    "Cannot have 2 or more assistant messages at the end of the list.": USER_LAST,
    "Only user and assistant roles are supported!": SYSTEM,
    "logit_bias is only allowed when top_p is": "logit_bias",
    "No endpoints found that support response_format": "response_format",
    "No user query found in messages.": USER_LAST,
    "user or tool message(s) should alternate with assistant message(s).": ALTERNATION,
    "`temperature` is deprecated for this model.": "temperature",
    "`temperature` and `top_p` cannot both be specified for this model. Please use only one.": "temperature",
    'Invalid JSON payload received. Unknown name "seed": Cannot find field.': "seed",
    "property 'logit_bias' is unsupported": "logit_bias",
    "This response_format type is unavailable now": "response_format",
    "Invalid parameter: stream_options": "stream_options",
    "got an unexpected keyword argument 'stream_options'": "stream_options",
    "`stop` is not supported with this model": "stop",
    "Streaming is not supported for this model": STREAM,
    "This model does not support streaming.": STREAM,
    "Unsupported value: 'stream' does not support true with this model.": STREAM,
    "'stream_options' is only allowed when 'stream' is enabled": "stream_options",
    "temperature: Input should be less than or equal to 1": None,
    "stop: too many stop sequences": None,
    "The model does not support function calling; please stop": None,
    "Invalid schema for response_format 'answer': 'oneOf' is not permitted.": None,
    "Request contains an invalid argument.": None,
    "Unsupported parameter: 'max_tokens' is not supported with this model.": None,
}


@pytest.mark.parametrize(("message", "part"), MESSAGES.items())
def test_servers_name_what_they_refuse_in_many_ways(message, part):
    assert refused_part(400, message, [*FIELDS, STREAM], {STREAM, SYSTEM, USER_LAST, ALTERNATION}, ()) == part
    assert refused_part(401, message, FIELDS, {SYSTEM, USER_LAST, ALTERNATION}, ()) is None


FIELD_NAMES = """choices message delta content finish_reason refusal tool_calls model usage error type response output
status incomplete_details object prompt_tokens input_tokens stop_reason content_block text reason""".split()
KINDS = ["message", "message_start", "content_block_delta", "message_delta", "response", "text", "reasoning", "error"]
KINDS += [f"response.{kind}" for kind in ("completed", "incomplete", "failed", "output_text.delta", "refusal.delta")]
ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(KINDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELD_NAMES), inner, max_size=5),
    max_leaves=12,
)


@pytest.mark.parametrize("builder", [ChatReplyBuilder, MessageBuilder, ResponseBuilder])
@given(responses=st.lists(ANY_VALUE, max_size=3))
def test_a_response_may_be_of_any_type(builder, responses):
    reply = builder("m")
    assert all(isinstance(reply.add(response), str) for response in responses)
    reply.end()
    assert "".join(reply.pieces) is not None
    assert isinstance(reply.model, str)
    assert isinstance(reply.finish_reason, str | None)
    if isinstance(reply, ResponseBuilder):
        Inputs().keep(list(QUESTION) * 2, "text", reply.output)


async def test_a_reason_that_is_not_known_is_not_shown(client):
    lm = client("openai", Says(None, finish_reason="sk-secret-0123456789"))
    assert "sk-secret" not in (await Asked(lm).answer()).error


def test_the_docs_show_the_table():
    page = Path(__file__).parents[2] / "docs" / "backends.md"
    assert table() in page.read_text("utf-8")
