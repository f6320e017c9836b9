"""Each row of the table of oddities, with the clients of OpenAI and Anthropic, streamed and not."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from loopback import API_KEY, MODEL, Fails, LoopbackProvider, Says
from oddities import REFUSALS, REPLIES, table
from remote_clients import anthropic_lm, openai_lm

from rlm_kernel._async import Job
from rlm_kernel.clients.base import BaseLM
from rlm_kernel.clients.direct import get_client
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
            reply_tokens=50,
            max_children=1,
            child_turn=nullcontext,
            start_child=None,
            on_limit=lambda: None,
            tools={},
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
    reply = await lm.complete(QUESTION, on_text=[].append if way == "streamed" else None)
    reason = row.reason[way] if isinstance(row.reason, dict) else row.reason
    assert (reply.text, reply.finish_reason) == (row.text, reason)


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


async def test_a_reason_that_is_not_known_is_not_shown(client):
    lm = client("openai", Says(None, finish_reason="sk-secret-0123456789"))
    assert "sk-secret" not in (await Asked(lm).answer()).error


def test_the_docs_show_the_table():
    page = Path(__file__).parents[2] / "docs" / "backends.md"
    assert table() in page.read_text("utf-8")
