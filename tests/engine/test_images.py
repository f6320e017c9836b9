"""Pictures in sub-calls, from a cell to the model: who looks at them, who does not, and what the readers are told."""

from __future__ import annotations

import base64

import pytest
from loopback import Says

from rlm import RLM, ScriptedLM
from rlm_kernel.trajectory import events as told
from rlm_kernel.types import Image

GIF = b"GIF89a and the rest"
LOOK = f"print(llm_query('What is it?', images=[{GIF!r}]))"


class Blind(ScriptedLM):
    """A model that takes no pictures."""

    backend = "blind"
    takes_images = False


@pytest.fixture
def cell(run):
    """Run one cell with these models for sub-calls, and give back what it showed."""

    async def in_cell(code, *others, **config):
        root = Blind([f"```repl\n{code}\n```", "FINAL(x)"], model="root")
        await run(root, others=others, **config)
        return root.calls[1].prompt

    return in_cell


async def test_the_model_sees_the_picture_beside_the_words(cell, events):
    sub = ScriptedLM(["A picture."], model="sub")
    assert "A picture." in await cell(LOOK, sub)
    assert (sub.calls[0].prompt, sub.calls[0].images) == ("What is it?", (Image.of(GIF),))
    (started,) = [e for e in events if isinstance(e, told.SubcallStarted)]
    assert started.images == (Image.of(GIF),)


async def test_the_same_words_about_another_picture_are_another_question(cell, events):
    sub = ScriptedLM(["one", "two", "three"], model="sub")
    await cell("for i in b'ab':\n    llm_query('q', images=[b'GIF89a' + bytes([i])])\nllm_query('q')", sub)
    keys = [e.keys for e in events if isinstance(e, told.SubcallStarted)]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("call", ["llm_query('q'", "llm_query_batched(['q', 'r']"])
async def test_a_backend_that_takes_none_is_named_with_what_to_do(cell, events, call):
    shown = await cell(f"{call}, images=[{GIF!r}])", Blind([], model="sub"))
    assert "ValueError: the backend 'blind' takes no images for its model 'sub'" in shown
    assert "describe what they show" in shown
    assert {e.attempts for e in events if isinstance(e, told.SubcallAnswered)} == {0}


async def test_the_error_names_the_models_that_do(cell):
    sub, seeing = Blind([], model="sub"), ScriptedLM(["A picture."], model="seeing")
    assert "model= one of 'seeing'" in await cell(LOOK, sub, seeing)
    named = LOOK.replace("images", "model='seeing', images")
    assert "A picture." in await cell(named, sub, seeing)


async def test_a_child_takes_no_pictures_and_a_plain_call_does(cell):
    ask = LOOK.replace("llm_query", "rlm_query")
    assert "rlm_query takes no images" in await cell(ask, ScriptedLM([], model="sub"), max_depth=2)
    assert "A picture." in await cell(ask, ScriptedLM(["A picture."], model="sub"))


async def test_pictures_and_a_schema_go_together(cell):
    sub = ScriptedLM(["no", '["a", "b"]'], model="sub")
    code = LOOK.replace("images", "schema={'type': 'array'}, images")
    assert "['a', 'b']" in await cell(code, sub)
    assert [call.messages[0]["images"] for call in sub.calls] == [(Image.of(GIF),)] * 2


async def test_a_rebuilt_kernel_is_answered_by_picture(run):
    root = Blind(
        [
            "```repl\na, b = (llm_query('q', images=[b'GIF89a' + x]) for x in (b'a', b'b'))\n```",
            "```repl\nimport os; os._exit(1)\n```",
            "```repl\nFINAL(a + b)\n```",
        ]
    )
    sub = ScriptedLM(["1", "2"], model="sub")
    assert (await run(root, others=(sub,))).response == "12"


def test_a_picture_goes_all_the_way_to_a_provider(provider):
    provider.script = [f"```repl\nFINAL(llm_query('What?', images=[{GIF!r}]))\n```", Says("A picture.")]
    with RLM(backend="openai", backend_kwargs=provider.backend_kwargs) as rlm:
        assert rlm.completion("x").response == "A picture."
    picture, _ = provider.requests[1].messages[0]["content"]
    assert picture["image_url"]["url"] == f"data:image/gif;base64,{base64.b64encode(GIF).decode()}"


def test_schemas_go_all_the_way_to_a_provider_and_are_repaired(provider):
    ask = "llm_query('Which?', schema={'type': 'integer'})"
    provider.script = [f"```repl\nFINAL({ask} + 1)\n```", "six", "6"]
    with RLM(backend="openai", backend_kwargs=provider.backend_kwargs) as rlm:
        result = rlm.completion("x", response_schema={"type": "integer"})
    assert (result.parsed, result.usage_summary.total_calls) == (7, 3)
    assert [r.body.get("response_format", {}).get("type") for r in provider.requests] == [
        None,
        "json_schema",
        "json_schema",
    ]
