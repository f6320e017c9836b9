"""Every backend asks the real model, whose server speaks OpenAI's API and Anthropic's; Portkey also its gateway."""

import asyncio
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from backends_on_loopback import REMOTE, closed, marks

from rlm_kernel.clients.llamacpp.client import LlamaCppLM
from rlm_kernel.clients.llamacpp.weights import QWEN_CODER
from rlm_kernel.clients.registry import build
from rlm_kernel.errors import LMError

GATEWAY = Path(__file__).parents[2] / ".cache/portkey-gateway/node_modules/@portkey-ai/gateway/build/start-server.js"
SUM = [{"role": "system", "content": "Answer with the number only."}, {"role": "user", "content": "What is 2 + 2?"}]
STORY = "The old tree stood by the river, and the children came to it every day. " * 30

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("real_model")]

# litellm has a provider in its names for each way of asking.
WAYS = [
    *((name, QWEN_CODER.name) for name in REMOTE if name != "litellm"),
    *(("litellm", f"{provider}/{QWEN_CODER.name}") for provider in ("openai", "hosted_vllm", "anthropic")),
]


@pytest.fixture
async def address():
    """Of the server that all tests with the usual settings share."""
    address, _ = await LlamaCppLM()._find_server()
    return address


@pytest.fixture
async def client(address):
    made = []

    def make(backend, model=QWEN_CODER.name, **given):
        url = address.base_url.removesuffix("/v1") if model.startswith("anthropic/") else address.base_url
        asked = {"model_name": model, "api_key": address.api_key, "base_url": url, "sampling_args": {"temperature": 0}}
        if backend == "portkey":
            asked["Authorization"] = (
                address.api_key
            )  # without a gateway between: the model's server wants a key of its own
        made.append(build(backend, {**asked, **given}, {}))
        return made[-1]

    yield make
    for lm in made:
        await closed(lm)


@pytest.mark.parametrize(("backend", "model"), [pytest.param(*way, marks=marks(way[0])) for way in WAYS])
async def test_the_model_answers_whole_and_streamed(client, backend, model):
    lm, pieces = client(backend, model), []
    whole = await lm.complete(SUM, max_tokens=8)
    streamed = await lm.complete(SUM, max_tokens=8, on_text=pieces.append)
    assert "4" in whole.text
    assert "".join(pieces) == streamed.text == whole.text
    for reply in (whole, streamed):
        assert reply.finish_reason == "stop"
        assert 10 < reply.usage.input_tokens < 60
        assert 0 < reply.usage.output_tokens <= 8
    assert whole.usage.cost == (0.0 if backend in {"vllm", "ollama"} else None)


@pytest.mark.parametrize("backend", ["openai", "anthropic", "vllm"])
async def test_the_server_tells_its_context_window(client, backend):
    lm = client(backend)
    await lm.complete(SUM, max_tokens=4)
    await (await lm._connection._openings[asyncio.get_running_loop()]).errand
    assert lm.context_window == 8192


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
async def test_a_growing_conversation_is_read_from_the_cache(client, backend):
    lm, messages = client(backend), [{"role": "system", "content": "Be brief."}, {"role": "user", "content": STORY}]
    first = await lm.complete(messages, max_tokens=8)
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "Who came to it?"}]
    second = await lm.complete(messages, max_tokens=8)
    assert second.usage.input_tokens > first.usage.input_tokens
    assert second.usage.cached_tokens > 0.9 * first.usage.input_tokens


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
async def test_a_conversation_that_is_too_long_says_so(client, backend):
    with pytest.raises(LMError, match="context window") as caught:
        await client(backend, max_retries=0).complete([{"role": "user", "content": "word " * 9000}])
    assert caught.value.status == 400


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
async def test_a_wrong_key_is_refused_and_not_shown(client, backend):
    with pytest.raises(LMError, match="Check the key") as caught:
        await client(backend, api_key="sk-quite-another-key").complete(SUM)
    assert "sk-quite-another-key" not in str(caught.value)


# Portkey's gateway


@pytest.fixture(scope="module")
def gateway():
    """The address of the real gateway, an npm package that .ci/run installs."""
    missing = f"the npm package @portkey-ai/gateway is not in {GATEWAY.parents[3]}"
    if not (GATEWAY.is_file() and shutil.which("node")):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(["node", GATEWAY, f"--port={port}", "--headless"], stdout=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


async def listening(url):
    port = int(url.split(":")[2].removesuffix("/v1"))
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return await writer.wait_closed()


async def test_portkeys_real_gateway_hands_the_question_on(client, gateway, address):
    await listening(gateway)
    lm = client(
        "portkey",
        base_url=gateway,
        api_key="no-key-of-portkeys",
        provider="openai",
        custom_host=address.base_url,
    )
    reply = await lm.complete(SUM, max_tokens=8)
    assert "4" in reply.text
    assert 10 < reply.usage.input_tokens < 60


async def test_an_error_behind_the_gateway_comes_through(client, gateway, address):
    await listening(gateway)
    lm = client(
        "portkey", base_url=gateway, provider="openai", custom_host=address.base_url, Authorization="another-key"
    )
    with pytest.raises(LMError, match="Check the key") as caught:
        await lm.complete(SUM)
    assert (caught.value.backend, caught.value.status) == ("portkey", 401)
    assert "another-key" not in str(caught.value)
