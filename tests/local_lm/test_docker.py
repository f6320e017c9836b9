"""The local model answers a container that has no network."""

from __future__ import annotations

import pytest

from rlm import RLM, ScriptedLM
from rlm_kernel.clients.llamacpp.weights import QWEN_CODER

CODE = """```repl
import os
assert os.listdir("/sys/class/net") == ["lo"]
colours = llm_query_batched([f"What colour is {thing}? Answer with one word." for thing in context])
FINAL(colours)
```"""


@pytest.mark.elsewhere
@pytest.mark.parametrize("transport", ["ipc", "relay"])
async def test_sub_calls_of_a_container_without_a_network_are_answered(docker_engine, model, transport):
    options = {"transport": transport}
    async with RLM(
        ScriptedLM([CODE]),
        environment="docker",
        environment_kwargs=options,
        other_backends=["llamacpp"],
        other_backend_kwargs=[{"base_url": model.base_url}],
    ) as rlm:
        completion = await rlm.acompletion(["fresh snow", "a ripe tomato", "a clear sky at noon"])
    colours = completion.response.lower()
    assert colours.index("white") < colours.index("red") < colours.index("blue")
    assert completion.usage_summary.model_usage_summaries[QWEN_CODER.name].total_calls == 3
