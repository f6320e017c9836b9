"""OpenAI's Responses API against the loopback provider: chosen by itself, streamed and not, with reasoning kept."""

from __future__ import annotations

import pytest
from loopback import API_KEY, MODEL, Fails, LoopbackProvider, Request, Says, Sends
from loopback_responses import events, reasoning, response
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from pydantic_core import to_json
from remote_clients import openai_lm

from rlm_kernel._async import Job
from rlm_kernel.clients.direct import get_client
from rlm_kernel.clients.refused_parts import CHAT
from rlm_kernel.errors import ContextOverflowError, LMError
from rlm_kernel.types import Image, Usage

QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?"}]
PNG = Image.of(b"\x89PNG\r\n\x1a\n and the rest")
REFUSALS = [
    "This model is only supported in v1/responses and not in v1/chat/completions.",
    "This is not a chat model and thus not supported in the v1/chat/completions endpoint.",
    "The chat completions API does not serve this model. Use the Responses API.",
]
TOOL = {"id": "fc_1", "type": "function_call", "name": "python", "call_id": "call_1", "arguments": "{}"}
SAYS = [
    Says("It is 42."),
    Says("It is", finish_reason="length"),
    Says(None, finish_reason="content_filter"),
    Says(None, fields={"refusal": "No."}),
    Says("It", finish_reason="error"),
    Says("It is 42.", blocks=(reasoning("abc", "I looked."),), usage=(12, 9), cached=8),
    Says("It is 42.", usage=None),
]


@pytest.fixture(scope="module")
def server():
    with LoopbackProvider() as loopback:
        yield loopback


@pytest.fixture
async def client(server):
    made = []

    def make(script, **options):
        server.script = knowing_only_responses(script)
        server.requests.clear()
        made.append(openai_lm(MODEL, API_KEY, server.base_url, timeout=20, max_retries=0, **options))
        return made[-1]

    yield make
    for lm in made:
        await lm.close()


@pytest.fixture(params=["whole", "streamed"])
def on_text(request):
    return None if request.param == "whole" else [].append


def knowing_only_responses(script, refusal=REFUSALS[0], status=404):
    """A server whose model chat completions refuse."""
    steps = iter(script) if isinstance(script, list) else None

    def answer(request):
        if not request.is_responses:
            return Fails(status, refusal)
        return script(request) if steps is None else next(steps)

    return answer


def paths(server):
    return [request.path for request in server.requests]


# The double


@pytest.mark.parametrize("says", SAYS, ids=str)
def test_the_double_speaks_the_wire_format_of_the_sdk(says):
    spent = None if says.usage is None else (5, 3)
    Response.model_validate(response(says, MODEL, spent, thought=2), strict=True)
    adapter = TypeAdapter(ResponseStreamEvent)
    for event in events(says, says.pieces, MODEL, spent):
        adapter.validate_python(event)


# Which API


@pytest.mark.parametrize("status", [400, 404])
@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_model_that_chat_completions_refuse_is_asked_there(client, server, on_text, refusal, status):
    lm = client([])
    server.script = knowing_only_responses(lambda _: "42", refusal, status)
    for _ in range(2):
        assert (await lm.complete(QUESTION, on_text=on_text)).text == "42"
    assert paths(server) == ["/v1/chat/completions", "/v1/responses", "/v1/responses"]


@pytest.mark.parametrize(
    ("name", "only_responses"),
    [
        ("o1-pro", True),
        ("o3-pro-2025-06-10", True),
        ("gpt-5-pro", True),
        ("gpt-5.2-pro", True),
        ("gpt-5.1-codex-max", True),
        ("codex-mini-latest", True),
        ("o4-mini-deep-research", True),
        ("gpt-5", False),
        ("gpt-5-mini", False),
        ("o3", False),
        ("gpt-4o", False),
    ],
)
def test_openais_models_are_known_by_name(name, only_responses):
    assert (CHAT in openai_lm(name, "key").adapter.left_out) is only_responses
    assert CHAT not in openai_lm(name, "key", "http://localhost:8000/v1").adapter.left_out


def test_a_summary_of_reasoning_selects_the_api_at_openai():
    assert CHAT in openai_lm("gpt-5", "key", sampling_args={"reasoning_summary": "auto"}).adapter.left_out
    assert CHAT in openai_lm("gpt-5", "key", sampling_args={"reasoning": {"effort": "low"}}).adapter.left_out
    assert CHAT not in openai_lm("gpt-5", "key", sampling_args={"reasoning_effort": "low"}).adapter.left_out


async def test_a_model_that_does_not_exist_stays_an_error(client, server):
    lm = client([])
    server.script = lambda _: Fails(404, "The model `loopback-model` does not exist or you do not have access to it.")
    with pytest.raises(LMError, match="does not exist"):
        await lm.complete(QUESTION)
    assert paths(server) == ["/v1/chat/completions"]


# Requests


async def test_the_request_has_the_fields_of_the_api_and_stores_nothing(client, server, on_text):
    sampling = {"reasoning_effort": "high", "reasoning_summary": "auto", "verbosity": "low", "temperature": 1}
    lm = client(lambda _: "42", sampling_args=sampling)
    await lm.complete(QUESTION, max_tokens=500, on_text=on_text)
    body = dict(server.requests[-1].body)
    body.pop("stream", None)
    assert body == {
        "model": MODEL,
        "input": QUESTION,
        "max_output_tokens": 500,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "high", "summary": "auto"},
        "text": {"verbosity": "low"},
        "temperature": 1,
    }


async def test_a_schema_and_images_have_the_form_of_the_api(client, server):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    await client(lambda _: '{"n": 1}').complete([{"role": "user", "content": "?", "images": (PNG,)}], schema=schema)
    body = server.requests[-1].body
    assert body["text"]["format"] == {"type": "json_schema", "name": "answer", "schema": schema, "strict": False}
    assert [part["type"] for part in body["input"][0]["content"]] == ["input_image", "input_text"]


@pytest.mark.parametrize(
    ("message", "part"),
    [
        ("Unsupported parameter: 'temperature' is not supported with this model.", "temperature"),
        ("Your organization must be verified to generate reasoning.summary.", "reasoning.summary"),
        ("Encrypted content is not supported with this model.", "reasoning items"),
    ],
)
async def test_what_the_model_refuses_is_left_out_there_too(client, server, message, part):
    refusals = {
        "temperature": lambda body: "temperature" in body,
        "reasoning.summary": lambda body: "summary" in body.get("reasoning", {}),
        "reasoning items": lambda body: "include" in body,
    }
    lm = client(
        lambda request: Fails(400, message) if refusals[part](request.body) else "42",
        sampling_args={"temperature": 0, "reasoning": {"effort": "low", "summary": "auto"}},
    )
    for _ in range(2):
        assert (await lm.complete(QUESTION)).text == "42"
    assert len(server.requests) == 4
    assert server.requests[-1].body["reasoning"]["effort"] == "low"


# Reasoning


async def test_reasoning_goes_back_with_the_next_turn_of_its_conversation(client, server, on_text):
    thought = reasoning("abc")
    lm = client([Says("First.", blocks=(thought,)), "Second.", "Other."])
    first = await lm.complete(QUESTION, on_text=on_text)
    turn = [*QUESTION, {"role": "assistant", "content": first.text}, {"role": "user", "content": "Go on."}]
    await lm.complete(turn, on_text=on_text)
    await lm.complete([*turn[1:]], on_text=on_text)  # another conversation with the same words
    second, other = (request.body["input"] for request in server.requests[-2:])
    assert second[2] == thought
    assert (second[3]["type"], second[3]["content"][0]["text"]) == ("message", "First.")
    assert [item["role"] for item in second[3:]] == ["assistant", "user"]
    assert other == turn[1:]


async def test_reasoning_that_the_server_cannot_read_is_left_out(client, server):
    def script(request):
        if any(item.get("type") == "reasoning" for item in request.body["input"]):
            return Fails(400, "The encrypted content for item rs_abc could not be verified.")
        return Says("First.", blocks=(reasoning("abc"),))

    lm = client(script)
    await lm.complete(QUESTION)
    turn = [*QUESTION, {"role": "assistant", "content": "First."}, {"role": "user", "content": "Go on."}]
    assert (await lm.complete(turn)).text == "First."


# Replies


@pytest.mark.parametrize(
    ("says", "text", "reason"),
    [
        (SAYS[0], "It is 42.", "stop"),
        (SAYS[1], "It is", "length"),
        (Says(None, finish_reason="length", blocks=(reasoning("abc"),)), "", "length"),
        (SAYS[2], "", "content_filter"),
        (SAYS[3], "No.", "refusal"),
        (SAYS[4], "It", "error"),
        (Says(None, blocks=(reasoning("abc", "I looked."),)), "", "stop"),
        (
            Says(None, blocks=({"type": "function_call", "name": "python", "call_id": "c", "arguments": "{}"},)),
            "",
            "tool_calls",
        ),
    ],
    ids=["text", "cut", "thinking took the limit", "filter", "refusal", "error", "only thinking", "tool"],
)
async def test_a_response_is_read(client, on_text, says, text, reason):
    reply = await client([says]).complete(QUESTION, on_text=on_text)
    assert (reply.text, reply.finish_reason) == (text, reason)


async def test_usage_has_the_cached_tokens_and_counts_reasoning_as_output(client, on_text):
    reply = await client([SAYS[5]]).complete(QUESTION, on_text=on_text)
    assert reply.usage == Usage(12, 9, 8)


async def test_a_stream_gives_its_pieces_and_no_thought(client):
    pieces = []
    await client([Says("one two", blocks=(reasoning("abc", "I looked."),))]).complete(QUESTION, on_text=pieces.append)
    assert pieces == ["one ", "two"]


def message(text, **fields):
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [part], **fields}


def streamed(deltas, *output):
    """A stream with some deltas, each with the index of its item, and its completed response."""
    whole = {**response(Says(None), MODEL, (1, 1)), "output": list(output)}
    made = [{"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}}]
    made += [
        {"type": "response.output_item.added", "output_index": index, "item": {**item, "content": []}}
        for index, item in enumerate(output)
    ]
    made += [
        {"type": "response.output_text.delta", "output_index": index, "content_index": 0, "delta": delta}
        for index, delta in deltas
    ]
    made.append({"type": "response.completed", "response": whole})
    return Sends(b"".join(b"data: %s\n\n" % to_json(event) for event in made), content_type="text/event-stream")


@pytest.mark.parametrize(
    ("deltas", "output", "text", "passed_on"),
    [
        ([(0, "FINAL(4")], [message("FINAL(42)")], "FINAL(42)", "FINAL(42)"),
        ([(0, "FINAL(42)"), (0, "FINAL(42)")], [message("FINAL(42)")], "FINAL(42)", "FINAL(42)FINAL(42)"),
        ([(0, "FINAL("), (1, "no"), (0, "42)")], [message("FINAL(42)"), message("no")], "FINAL(42)no", "FINAL(42)no"),
        ([(0, "FINAL("), (1, "no"), (0, "42)")], [], "FINAL(42)no", "FINAL(42)no"),
        (
            [(0, "FINAL(no)"), (1, "FINAL(42)")],
            [message("FINAL(no)", phase="commentary"), message("FINAL(42)", phase="final_answer")],
            "FINAL(42)",
            "FINAL(42)",
        ),
    ],
    ids=["a lost delta", "a delta twice", "two items", "two items, no output", "commentary"],
)
async def test_the_completed_response_is_the_text_of_a_stream(client, deltas, output, text, passed_on):
    pieces = []
    reply = await client([streamed(deltas, *output)]).complete(QUESTION, on_text=pieces.append)
    assert (reply.text, "".join(pieces)) == (text, passed_on)


async def test_a_message_of_commentary_is_no_answer(client):
    items = [message("FINAL(no)", phase="commentary"), message("FINAL(42)")]
    whole = {**response(Says(None), MODEL, (1, 1)), "output": items}
    assert (await client([Sends(to_json(whole))]).complete(QUESTION)).text == "FINAL(42)"


async def test_a_failure_without_text_is_an_error_with_the_providers_words(client, on_text):
    with pytest.raises(LMError, match="The model failed"):
        await client([Says(None, finish_reason="error")]).complete(QUESTION, on_text=on_text)


async def test_a_stream_that_breaks_off_is_an_error(client):
    with pytest.raises(LMError, match="broke off"):
        await client([Says("one two three", breaks_after=2)]).complete(QUESTION, on_text=[].append)


@pytest.mark.parametrize("payload", [b"[]", b"{}", b"null", b'{"choices": []}'])
async def test_what_is_no_response_points_at_the_base_url(client, payload):
    with pytest.raises(LMError, match="speak the OpenAI API?"):
        await client([Sends(payload)]).complete(QUESTION)


@pytest.mark.parametrize(
    "fields", [b"", b', "output": null', b', "output": [null, 1, {"type": "message"}], "usage": 3']
)
async def test_a_response_that_lacks_fields_is_an_empty_reply(client, fields):
    reply = await client([Sends(b'{"object": "response"%s}' % fields)]).complete(QUESTION)
    assert (reply.text, reply.finish_reason) == ("", "stop")


async def test_an_overflow_is_known_there_too(client):
    step = Fails(400, "Your input exceeds the context window of this model.", "context_length_exceeded")
    with pytest.raises(ContextOverflowError):
        await client([step]).complete(QUESTION)


async def test_a_client_of_ones_own_chooses_it_too(server):
    def script(request: Request):
        return "42" if request.is_responses else Fails(404, REFUSALS[0])

    server.script = script
    own = get_client("openai", {"model_name": MODEL, "api_key": API_KEY, "base_url": server.base_url})
    assert await own.acompletion("Which?") == "42"
    assert own.get_last_usage().total_output_tokens == 1
    await Job(own.close()).wait_async()
