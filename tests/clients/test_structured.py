"""Schemas and pictures in each provider's own words, on loopback; and what happens where a provider knows neither."""

from __future__ import annotations

import base64

import pydantic
import pytest
from backends_on_loopback import client_of, closed, each_backend
from loopback import Fails, Says
from remote_clients import anthropic_lm, openai_lm

from rlm_kernel.clients.llamacpp.client import LlamaCppLM
from rlm_kernel.clients.provider_errors import refuses_schema
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.errors import LMError
from rlm_kernel.types import Image

PNG = Image.of(b"\x89PNG\r\n\x1a\n and the rest")
GIF = Image.of(b"GIF89a and the rest")
QUESTION = [{"role": "user", "content": "Which town?"}]
LOOK = [{"role": "user", "content": "What is this?", "images": (PNG, GIF)}]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}
ANSWER = '{"name": "Rome"}'
IN_WORDS = "Answer with JSON only"
REFUSALS = {
    "openai": Fails(400, "Invalid schema for response_format 'answer': schema must be of type 'object'."),
    "vllm": Fails(400, "The provided JSON schema contains features not supported by xgrammar."),
    "llama.cpp": Fails(400, "failed to parse grammar"),
    "openrouter": Fails(404, "No endpoints found that support structured outputs."),
    "anthropic": Fails(400, "'claude-3-haiku' does not support output format.", type="invalid_request_error"),
    "anthropic schema": Fails(400, "output_config.format.schema: too complex", type="invalid_request_error"),
}


@pytest.fixture(params=each_backend())
def backend(request):
    return request.param


@pytest.fixture
async def client(backend, provider):
    made = []

    def make(script, **given):
        provider.script = script
        made.append(client_of(backend, provider, **given))
        return made[-1]

    yield make
    for lm in made:
        await closed(lm)


def asked_for(request):
    """The schema in a request, in the words of either API; None when there is none."""
    if request.is_anthropic:
        return request.body.get("output_config", {}).get("format", {}).get("schema")
    return request.body.get("response_format", {}).get("json_schema", {}).get("schema")


@pytest.mark.parametrize("on_text", [None, [].append], ids=["whole", "streamed"])
async def test_a_schema_reaches_the_provider_in_its_own_mode(client, provider, on_text):
    reply = await client([ANSWER]).complete(QUESTION, schema=SCHEMA, on_text=on_text)
    assert reply.text == ANSWER
    assert asked_for(provider.requests[0]) == SCHEMA


async def test_without_a_schema_nothing_of_it_is_sent(client, provider):
    await client(["hello"]).complete(QUESTION)
    assert not {"response_format", "output_config"} & provider.requests[0].body.keys()
    assert provider.requests[0].prompt == "Which town?"


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_a_provider_that_refuses_is_asked_in_words_and_not_tried_again(client, provider, refusal):
    lm = client([refusal, ANSWER, ANSWER], max_retries=0)
    assert [(await lm.complete(QUESTION, schema=SCHEMA)).text for _ in range(2)] == [ANSWER] * 2
    first, *others = provider.requests
    assert asked_for(first) == SCHEMA
    assert [asked_for(request) for request in others] == [None, None]
    assert all(IN_WORDS in request.prompt for request in others)


async def test_another_schema_is_tried_though_one_was_refused(client, provider):
    lm = client([REFUSALS["openai"], ANSWER, ANSWER], max_retries=0)
    await lm.complete(QUESTION, schema=SCHEMA)
    await lm.complete(QUESTION, schema={**SCHEMA, "title": "Another"})
    assert asked_for(provider.requests[2]) is not None


async def test_a_schema_with_a_lone_surrogate_is_sent_without_it(client, provider):
    properties = {"na\ud800me": {"enum": ["\ud83d\ude00", "\ud83d"]}}
    await client([ANSWER]).complete(QUESTION, schema={**SCHEMA, "properties": properties, "required": ["na\ud800me"]})
    sent = asked_for(provider.requests[0])
    assert (sent["properties"]["na\ufffdme"]["enum"], sent["required"]) == (["\U0001f600", "\ufffd"], ["na\ufffdme"])


async def test_a_model_that_is_called_like_a_refused_schema_is_asked_once(client, provider):
    gone = Fails(404, "The model grammar-fixer does not exist")
    with pytest.raises(LMError):
        await client([gone], model_name="openai/grammar-fixer", max_retries=0).complete(QUESTION, schema=SCHEMA)
    assert len(provider.requests) == 1


@pytest.mark.parametrize("step", [Fails(401, "Wrong key"), Fails(429, "Slow down"), Fails(400, "No such field: top_k")])
async def test_an_error_that_is_not_about_the_schema_is_an_error(client, provider, step):
    with pytest.raises(LMError):
        await client([step], max_retries=0).complete(QUESTION, schema=SCHEMA)
    assert len(provider.requests) == 1


async def test_pictures_reach_the_provider_before_the_words(client, provider):
    reply = await client(["Two pictures."]).complete(LOOK)
    assert reply.text == "Two pictures."
    *pictures, words = provider.requests[0].messages[0]["content"]
    assert words == {"type": "text", "text": "What is this?"}
    assert [seen(picture) for picture in pictures] == [("image/png", PNG.data), ("image/gif", GIF.data)]


def seen(part):
    """The kind and the bytes of a picture in a request, in the words of either API."""
    if part["type"] == "image":
        assert part["source"]["type"] == "base64"
        return part["source"]["media_type"], base64.b64decode(part["source"]["data"])
    kind, _, data = part["image_url"]["url"].removeprefix("data:").partition(";base64,")
    return kind, base64.b64decode(data)


async def test_pictures_and_a_schema_go_together(client, provider):
    await client([ANSWER]).complete(LOOK, schema=SCHEMA)
    assert len(provider.requests[0].messages[0]["content"]) == 3
    assert asked_for(provider.requests[0]) == SCHEMA


async def test_a_client_takes_images(client):
    assert client([]).takes_images


# -- OpenAI's words


async def test_strict_is_asked_for_where_the_schema_leaves_nothing_open(provider):
    provider.script = [ANSWER, ANSWER]
    lm = openai_lm("m", "key", provider.base_url)
    for schema in (SCHEMA, {"type": "object"}):
        await lm.complete(QUESTION, schema=schema)
    await lm.close()
    assert [request.body["response_format"]["json_schema"]["strict"] for request in provider.requests] == [True, False]


async def test_a_server_that_only_holds_the_words_to_the_schema_tells_the_model_too(provider):
    provider.script = [ANSWER]
    lm = openai_lm("m", "key", provider.base_url)
    await lm.complete(QUESTION, schema=SCHEMA)
    await lm.close()
    assert IN_WORDS in provider.requests[0].prompt


def test_openai_itself_shows_the_schema_to_its_models():
    assert openai_lm("m", "key").adapter.shows_schema
    assert not openai_lm("m", "key", "http://127.0.0.1:8000/v1").adapter.shows_schema


# -- Anthropic's words


@pytest.fixture
async def claude(provider):
    lm = anthropic_lm("claude", "key", provider.base_url, sampling_args={"output_config": {"effort": "low"}})
    yield lm
    await lm.close()


async def test_the_format_stands_beside_what_the_user_configures(claude, provider):
    provider.script = [ANSWER]
    await claude.complete(QUESTION, schema=SCHEMA)
    assert provider.requests[0].body["output_config"]["effort"] == "low"
    assert provider.requests[0].prompt == "Which town?"


class Town(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=2)


async def test_what_the_api_does_not_know_stands_in_the_description(claude, provider):
    provider.script = [ANSWER]
    await claude.complete(QUESTION, schema=Town.model_json_schema())
    sent = asked_for(provider.requests[0])
    assert sent["additionalProperties"] is False
    assert "minLength" in sent["properties"]["name"]["description"]


@pytest.mark.parametrize("schema", [{"type": "object", "additionalProperties": {"type": "integer"}}, {}])
async def test_a_schema_that_the_mode_would_empty_is_told_in_words(claude, provider, schema):
    provider.script = [ANSWER]
    await claude.complete(QUESTION, schema=schema)
    assert asked_for(provider.requests[0]) is None
    assert IN_WORDS in provider.requests[0].prompt


async def test_a_picture_in_a_growing_conversation_leaves_the_cache_mark_on_the_words(claude, provider):
    provider.script = ["A picture."]
    await claude.complete([{"role": "system", "content": "Look."}, *LOOK])
    assert "cache_control" in provider.requests[0].messages[0]["content"][-1]


# -- those that are no remote client


def test_the_local_model_takes_no_images():
    assert not LlamaCppLM(base_url="http://127.0.0.1:9").takes_images


async def test_the_scripted_model_shows_what_it_was_given():
    lm = ScriptedLM([ANSWER])
    await lm.complete(LOOK, schema=SCHEMA)
    assert (lm.calls[0].schema, lm.calls[0].images) == (SCHEMA, (PNG, GIF))


async def test_the_local_client_hands_the_schema_to_its_server(provider):
    provider.script = [ANSWER]
    lm = LlamaCppLM(base_url=provider.base_url)
    assert (await lm.complete(QUESTION, schema=SCHEMA)).text == ANSWER
    await lm.close()
    assert asked_for(provider.requests[0]) == SCHEMA


def test_a_refusal_is_known_by_status_and_words():
    def error(status, words):
        return LMError(words, backend="b", model="m", status=status)

    assert refuses_schema(error(422, "response_format: Extra inputs are not permitted"))
    assert not refuses_schema(error(429, "response_format is limited"))
    assert not refuses_schema(error(400, "max_tokens is too large"))


async def test_a_reply_in_pieces_is_counted_as_ever(client, provider):
    reply = await client([Says(ANSWER, usage=(12, 4))]).complete(QUESTION, schema=SCHEMA)
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (12, 4)
