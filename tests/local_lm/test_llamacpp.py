"""The backend `llamacpp` with the real model. Replies are short: two slow cores write thirty tokens a second."""

import asyncio
import signal
import subprocess
import sys

import psutil
import pytest
from remote_clients import openai_lm

from rlm_kernel.clients.llamacpp.client import LlamaCppLM
from rlm_kernel.clients.llamacpp.weights import QWEN_CODER
from rlm_kernel.clients.registry import build
from rlm_kernel.errors import LMError

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("real_model")]

WORDS = ["apple", "bridge", "candle", "desert", "engine", "forest", "garden", "hammer"]


def ask(text):
    return [{"role": "user", "content": text}]


@pytest.fixture
async def lm():
    """A client of the server with the usual settings, which all tests share."""
    client = LlamaCppLM()
    yield client
    await client.close()


@pytest.fixture
async def narrow():
    """A client of a server of its own, which answers one call at a time, and never by itself stops writing."""
    client = LlamaCppLM(n_parallel=1, sampling_args={"ignore_eos": True})
    yield client
    await client.close()
    client._server.stop()


async def test_a_streamed_reply_comes_in_pieces_with_the_same_usage(lm):
    pieces = []
    question = ask("Count from 1 to 9, separated by spaces.")
    streamed = await lm.complete(question, max_tokens=30, on_text=pieces.append)
    assert "".join(pieces) == streamed.text
    assert len(pieces) > 3
    whole = await lm.complete(question, max_tokens=30)
    assert whole.text == streamed.text
    assert whole.usage.input_tokens == streamed.usage.input_tokens
    assert whole.usage.output_tokens == streamed.usage.output_tokens


async def test_the_same_question_is_read_from_the_cache(lm):
    question = ask("Name a colour. " + "It should be a nice one. " * 20)
    first = await lm.complete(question, max_tokens=2)
    second = await lm.complete(question, max_tokens=2)
    assert second.usage.cached_tokens > 0.9 * first.usage.input_tokens


async def test_a_reply_ends_at_the_limit_of_the_call(lm):
    reply = await lm.complete(ask("Write a long story."), max_tokens=5)
    assert reply.usage.output_tokens == 5
    assert reply.finish_reason == "length"


async def test_eight_calls_at_once_each_get_their_own_answer(lm):
    replies = await asyncio.gather(
        *(lm.complete(ask(f"Repeat this word and nothing else: {word}"), max_tokens=8) for word in WORDS)
    )
    assert [word for word, reply in zip(WORDS, replies, strict=True) if word not in reply.text.lower()] == []
    assert all(reply.usage.input_tokens > 20 for reply in replies)


async def test_too_long_a_conversation_says_both_numbers_and_what_to_do(lm):
    with pytest.raises(LMError) as caught:
        await lm.complete(ask("word " * 9000), max_tokens=5)
    assert caught.value.status == 400
    assert "8192" in str(caught.value)
    assert "n_ctx" in str(caught.value)


async def test_who_does_not_hold_the_key_is_refused(lm):
    await lm.complete(ask("hi"), max_tokens=1)
    stranger = LlamaCppLM(base_url=lm._address.base_url)
    with pytest.raises(LMError) as caught:
        await stranger.complete(ask("hi"), max_tokens=1)
    await stranger.close()
    assert caught.value.status == 401


async def test_the_key_is_in_no_repr(lm):
    await lm.complete(ask("hi"), max_tokens=1)
    assert lm._address.api_key not in repr([lm, lm._address, lm._server, lm._client])


async def test_a_wrong_path_is_a_404_that_names_base_url(lm):
    await lm.complete(ask("hi"), max_tokens=1)
    lost = openai_lm(lm.model, lm._address.api_key, f"{lm._address.base_url}/nowhere", backend="llamacpp")
    with pytest.raises(LMError, match="base_url") as caught:
        await lost.complete(ask("hi"), max_tokens=1)
    await lost.close()
    assert caught.value.status == 404


async def test_two_clients_share_one_server(lm):
    first, second = build("llamacpp", None, {}), build("llamacpp", {"model_name": QWEN_CODER.name}, {})
    for client in (first, second):
        await client.complete(ask("hi"), max_tokens=1)
        await client.close()
    assert first._server is second._server


async def test_closing_a_client_leaves_the_others_alone(lm):
    other = LlamaCppLM()
    await other.complete(ask("hi"), max_tokens=1)
    await other.close()
    assert (await lm.complete(ask("hi"), max_tokens=1)).usage.output_tokens == 1


async def test_a_cancelled_call_frees_its_slot(narrow):
    writing = asyncio.Event()
    call = narrow.complete(ask("Tell a story."), max_tokens=8000, on_text=lambda _: writing.set())
    long = asyncio.create_task(call)
    await writing.wait()
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    # Were the slot not free, this would take minutes and the test's time would be over.
    assert (await narrow.complete(ask("hi"), max_tokens=2)).usage.output_tokens == 2


async def test_a_call_that_waits_for_its_turn_can_be_cancelled(narrow):
    writing = asyncio.Event()
    call = narrow.complete(ask("Tell a story."), max_tokens=8000, on_text=lambda _: writing.set())
    long = asyncio.create_task(call)
    await writing.wait()
    waiting = [asyncio.create_task(narrow.complete(ask("hi"), max_tokens=8000)) for _ in range(16)]
    await asyncio.sleep(0)
    for task in (*waiting, long):
        task.cancel()
    await asyncio.gather(*waiting, long, return_exceptions=True)
    assert all(task.cancelled() for task in (*waiting, long))
    assert (await narrow.complete(ask("hi"), max_tokens=2)).usage.output_tokens == 2


async def test_a_call_cancelled_while_the_model_loads_does_not_stop_the_others(narrow):
    impatient = asyncio.create_task(narrow.complete(ask("hi"), max_tokens=1))
    while narrow._server is None:
        await asyncio.sleep(0)
    server = narrow._server
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    await narrow.complete(ask("hi"), max_tokens=1)
    assert narrow._server is server


async def test_a_server_that_dies_fails_its_call_and_is_replaced(narrow):
    writing = asyncio.Event()
    call = narrow.complete(ask("Tell a story."), max_tokens=8000, on_text=lambda _: writing.set())
    task = asyncio.create_task(call)
    await writing.wait()
    dead = narrow._server
    psutil.Process(dead._process.pid).kill()
    with pytest.raises(LMError, match="has ended"):
        await task
    assert (await narrow.complete(ask("hi"), max_tokens=1)).usage.output_tokens == 1
    assert narrow._server is not dead


async def test_calls_that_wait_when_the_server_dies_are_answered_by_the_next(narrow):
    writing = asyncio.Event()
    call = narrow.complete(ask("Tell a story."), max_tokens=8000, on_text=lambda _: writing.set())
    asked = asyncio.create_task(call)
    await writing.wait()
    waiting = [asyncio.create_task(narrow.complete(ask("hi"), max_tokens=1)) for _ in range(3)]
    dead = narrow._server
    async with asyncio.timeout(60):
        while len(dead.turn()._waiters or ()) < len(waiting):
            await asyncio.sleep(0.01)
    psutil.Process(dead._process.pid).kill()
    with pytest.raises(LMError, match="has ended"):
        await asked
    assert [reply.usage.output_tokens for reply in await asyncio.gather(*waiting)] == [1, 1, 1]
    assert narrow._server is not dead


async def test_a_file_that_is_no_model_is_an_error_that_says_so(tmp_path):
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"not a model" * 1000)
    lm = LlamaCppLM("mine", model_path=path)
    for _ in range(2):  # a start that failed is tried again
        with pytest.raises(LMError, match="invalid magic") as caught:
            await lm.complete(ask("hi"))
        assert str(path) in str(caught.value)


HOST = """
import asyncio, os, signal, sys
from rlm_kernel.clients.llamacpp.client import LlamaCppLM

async def ask():
    lm = LlamaCppLM(n_ctx=512, n_parallel=1)
    await lm.complete([{"role": "user", "content": "hi"}], max_tokens=1)
    await lm.close()
    return lm._server._process.pid

pid = asyncio.run(ask())
"""
SAY_AND_WAIT = """
print(pid, flush=True)
signal.pause()
"""
FORK_ASK_AND_END = """
child = os.fork()
if not child:
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert asyncio.run(ask()) == pid
print(pid)
"""


def test_the_server_ends_with_a_process_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", HOST + SAY_AND_WAIT], stdout=subprocess.PIPE, text=True) as host:
        server = psutil.Process(int(host.stdout.readline()))
        assert server.is_running()
        host.send_signal(signal.SIGKILL)
    server.wait(timeout=10)


def test_a_process_ends_quietly_and_its_forked_children_leave_its_server_alone():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HOST + FORK_ASK_AND_END], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not psutil.pid_exists(int(done.stdout))
