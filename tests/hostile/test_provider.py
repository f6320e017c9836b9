"""What a provider may send instead of a reply, and what it may say of it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from hostile.bombs import BOMBS, Bomber

from rlm import RLM, ScriptedLM, TokenLimitExceededError
from rlm_kernel.clients import reply_size
from rlm_kernel.errors import LMError
from rlm_kernel.records import Reply, Usage

CLIENT = Path(__file__).with_name("bombed_client.py")
MODELS = {"openai": "m", "anthropic": "m", "portkey": "@p/m", "litellm": "openai/m"}
HOST_MEMORY = 200_000_000
ONE_SDK = sorted(BOMBS.keys() - {"gzip", "a stream without an end"})
ASKED = "FINAL(len(llm_query_batched(['x' * 100] * 64)))"


async def ask(backend, bomb, how):
    """What became of a call in a process of its own, and how many requests it took."""
    with Bomber(bomb) as bomber:
        url = bomber.url.removesuffix("/v1") if backend == "anthropic" else bomber.url
        arguments = [str(CLIENT), backend, url, MODELS[backend], how]
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        return json.loads(said), bomber.requests


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["whole", "streamed"])
@pytest.mark.parametrize("bomb", ["gzip", "a stream without an end"])
@pytest.mark.parametrize("backend", sorted(MODELS))
async def test_no_sdk_holds_a_reply_without_an_end(backend, bomb, how):
    if importlib.util.find_spec({"portkey": "portkey_ai"}.get(backend, backend)) is None:
        pytest.skip(f"needs the SDK of {backend}")
    told, requests = await ask(backend, bomb, how)
    assert "Nothing more of it was read" in told["words"]
    assert told["grown"] < HOST_MEMORY
    assert told["requests"] == requests == 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bomb", ONE_SDK)
async def test_whatever_arrives_the_memory_stays_bounded(bomb):
    for how in ("whole", "streamed"):
        told, _ = await ask("openai", bomb, how)
        assert told["words"].startswith("openai, model 'm'")
        assert told["grown"] < HOST_MEMORY


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize("cut", range(1, 9))
def test_a_long_stream_of_short_events_is_no_event_without_an_end(end, cut):
    size = reply_size.Size(streamed=True)
    told = (b'data: {"delta": "x"}' + end) * 5_000
    for start in range(0, len(told), cut * 7):
        size.add(told[start : start + cut * 7])


@pytest.mark.parametrize("usage", [Usage(), Usage(-(10**9), -(10**9)), Usage(0, 0, cost=0.0), Usage(True, 1.5)])
async def test_a_provider_that_does_not_say_what_it_used_uses_up_the_limit(usage):
    root = ScriptedLM([Reply(f"```repl\n{ASKED}\n```", "root", Usage(10, 5))], model="root")
    sub = ScriptedLM(lambda _: Reply("words", "sub", usage), model="sub")
    with pytest.raises(TokenLimitExceededError, match="are an estimate") as raised:
        await RLM(root, other_backends=[sub], max_tokens=10_000).acompletion("x")
    assert 10_000 <= raised.value.tokens_used < 10_000 + 100 + 4_096 + 1_000
    assert 10 <= len(sub.calls) < 20


@pytest.mark.parametrize(
    ("outcome", "charged"),
    [
        (LMError("no", backend="b", model="sub", status=401), 0),
        (LMError("no", backend="b", model="sub", status=429), 0),
        (LMError("no", backend="b", model="sub", status=500), 0),
        (LMError("no", backend="b", model="sub", status=504), 4_096),
        (LMError("broken off", backend="b", model="sub"), 4_096),
        (LMError("never sent", backend="b", model="sub", requests=0), 0),
        (LMError("all tries timed out", backend="b", model="sub", requests=3), 3 * 4_096),
        (LMError("no text", backend="b", model="sub", usage=Usage(7, 30)), 30),
        (ValueError("a bug of the client"), 4_096),
    ],
    ids=str,
)
async def test_a_call_that_fails_counts_unless_it_was_refused(outcome, charged):
    root = ScriptedLM(["```repl\nprint(llm_query('x'))\n```", "FINAL(done)"], model="root")
    done = await RLM(root, other_backends=[ScriptedLM(lambda _: outcome, model="sub")]).acompletion("x")
    sub = done.usage_summary.model_usage_summaries.get("sub")
    assert (sub.total_output_tokens if sub else 0) == charged
    assert bool(sub and sub.estimated_tokens) == (charged >= 4_096)


async def test_a_reply_without_choices_and_with_usage_is_charged_for(provider):
    from loopback import Sends

    root = ScriptedLM(["```repl\nprint(llm_query('x'))\n```", "FINAL(done)"], model="root")
    usage = {"prompt_tokens": 11, "completion_tokens": 222, "total_tokens": 233}
    provider.script = lambda _: Sends(json.dumps({"id": "x", "choices": [], "usage": usage}).encode())
    kwargs = {"other_backends": ["openai"], "other_backend_kwargs": [provider.backend_kwargs]}
    done = await RLM(root, **kwargs).acompletion("x")
    (spent,) = [s for name, s in done.usage_summary.model_usage_summaries.items() if name != "root"]
    assert (spent.total_calls, spent.total_input_tokens, spent.total_output_tokens) == (1, 11, 222)
