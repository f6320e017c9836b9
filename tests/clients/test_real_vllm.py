"""The backend `vllm` against a real vLLM server, where one runs; never in CI, whose machine has no room for it.

RLM_TEST_VLLM_URL is its endpoint (http://127.0.0.1:8000/v1), RLM_TEST_VLLM_MODEL the name that it serves.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from rlm_kernel.clients.registry import build
from rlm_kernel.errors import LMError

URL, MODEL = os.environ.get("RLM_TEST_VLLM_URL"), os.environ.get("RLM_TEST_VLLM_MODEL", "")
SUM = [{"role": "system", "content": "Answer with the number only."}, {"role": "user", "content": "What is 2 + 2?"}]

pytestmark = pytest.mark.skipif(URL is None, reason="RLM_TEST_VLLM_URL names no vLLM server")


@pytest.fixture
async def client():
    made = []

    def make(backend="vllm", model=MODEL, **given):
        asked = {"model_name": model, "base_url": URL, "api_key": "EMPTY", "sampling_args": {"temperature": 0}}
        made.append(build(backend, {**asked, **given}, {}))
        return made[-1]

    yield make
    for lm in made:
        await lm.close()


@pytest.mark.parametrize("backend", ["vllm", "openai", "anthropic"])
async def test_it_answers_whole_and_streamed(client, backend):
    lm, pieces = client(backend), []
    whole = await lm.complete(SUM, max_tokens=8)
    streamed = await lm.complete(SUM, max_tokens=8, on_text=pieces.append)
    assert "".join(pieces) == streamed.text == whole.text
    assert "4" in whole.text
    assert whole.usage.input_tokens == streamed.usage.input_tokens > 10
    assert whole.usage.output_tokens == streamed.usage.output_tokens > 0
    assert whole.usage.cost == (0.0 if backend == "vllm" else None)


async def test_it_tells_its_context_window(client):
    lm = client()
    await lm.complete(SUM, max_tokens=2)
    await (await lm._connection._openings[asyncio.get_running_loop()]).errand
    assert lm.context_window > 1000


async def test_a_conversation_that_is_too_long_says_so(client):
    with pytest.raises(LMError, match="larger window") as caught:
        await client().complete([{"role": "user", "content": "word " * 200_000}])
    assert caught.value.status == 400


async def test_an_unknown_model_is_named(client):
    with pytest.raises(LMError, match="Check model_name") as caught:
        await client(model="nobody").complete(SUM)
    assert caught.value.status == 404
