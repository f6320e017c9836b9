"""The real model is asked one question, with every gate."""

import pytest

from rlm_kernel.clients.llamacpp.client import LlamaCppLM
from rlm_kernel.clients.llamacpp.weights import QWEN_CODER


@pytest.mark.usefixtures("real_model")
async def test_a_question_is_answered_and_counted():
    lm = LlamaCppLM()
    reply = await lm.complete([{"role": "user", "content": "What is 2 + 2? Answer with the number only."}])
    await lm.close()
    assert "4" in reply.text
    assert reply.model == lm.model == QWEN_CODER.name
    assert reply.finish_reason == "stop"
    assert 20 < reply.usage.input_tokens < 60
    assert 0 < reply.usage.output_tokens < 10
    assert reply.usage.cost == 0.0  # nobody sends a bill
