"""The SDKs over both of their HTTP clients: aiohttp, if their extra is installed, and httpx."""

from __future__ import annotations

import gc
import threading
from contextlib import ExitStack
from socket import SHUT_RDWR, create_server, socket

import anthropic
import openai
import pytest
from loopback import Hangs, Says, Sends
from remote_clients import anthropic_lm, openai_lm

from rlm_kernel.clients.requests_sent import RequestsSent, requests_sent
from rlm_kernel.errors import LMError

QUESTION = [{"role": "user", "content": "Who are you?"}]


def _is_missing(**_):
    raise RuntimeError("To use the aiohttp client you must have installed the package with the `aiohttp` extra")


@pytest.fixture(params=["aiohttp", "httpx"])
def transport(request, monkeypatch):
    """The class name that the SDK's HTTP client must have."""
    if request.param == "aiohttp":
        pytest.importorskip("aiohttp")
        return "AiohttpTransport"
    for sdk in (openai, anthropic):
        monkeypatch.setattr(sdk, "DefaultAioHttpClient", _is_missing)
    return "AsyncHTTPTransport"


@pytest.fixture(params=["openai", "anthropic"])
async def client(request, provider, transport):
    made = []

    def make(script=(), **options):
        provider.script = script
        build, url = {"openai": (openai_lm, "/v1"), "anthropic": (anthropic_lm, "")}[request.param]
        url = provider.base_url.removesuffix("/v1") + url
        made.append(build("loopback-model", "loopback-key", **{"base_url": url, "timeout": 20, **options}))
        return made[-1]

    yield make
    for lm in made:
        await lm.close()


@pytest.fixture(params=["whole", "streamed"])
def on_text(request):
    return None if request.param == "whole" else [].append


async def fail(lm, on_text=None) -> LMError:
    with pytest.raises(LMError) as caught:
        await lm.complete(QUESTION, on_text=on_text)
    return caught.value


async def test_the_sdk_uses_the_transport(client, transport):
    sdk = client().adapter.open()
    assert type(sdk._client._transport).__name__ == transport
    await sdk.close()


async def test_a_reply_and_a_stream_arrive(client):
    lm, pieces = client(["I am a test.", "one two"]), []
    assert (await lm.complete(QUESTION)).text == "I am a test."
    assert (await lm.complete(QUESTION, on_text=pieces.append)).text == "one two"
    assert pieces == ["one ", "two"]


async def test_a_connection_closed_in_the_middle_is_a_request_that_counts(client, on_text):
    error = await fail(client([Says("one two three", breaks_after=2)], max_retries=0), on_text)
    assert "The reply broke off" in str(error)
    assert error.requests == 1


async def test_a_connection_closed_before_the_reply_is_a_request_that_counts(client, on_text):
    with ExitStack() as stack:
        server = stack.enter_context(create_server(("127.0.0.1", 0)))
        stack.callback(server.shutdown, SHUT_RDWR)
        threading.Thread(target=_read_and_close, args=(server,), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        error = await fail(client(base_url=url, max_retries=0), on_text)
    assert "The reply broke off" in str(error)
    assert error.requests == 1


def _read_and_close(server: socket) -> None:
    while True:
        try:
            accepted, _ = server.accept()
        except OSError:
            return
        with accepted:
            accepted.recv(65_536)


async def test_a_refused_connection_is_no_request(client, on_text):
    with socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        error = await fail(client(base_url=url, max_retries=0), on_text)
    assert f"Is the server at {url}" in str(error)
    assert error.requests == 0


async def test_a_timeout_names_the_seconds(client, on_text):
    error = await fail(client([Hangs()], timeout=0.2, max_retries=0), on_text)
    assert "No answer within 0.2 s (0 retries): raise timeout" in str(error)


async def test_an_endless_reply_is_not_read_to_its_end(client):
    error = await fail(client([Sends(b"[" * 200_000)]))
    assert "the reply has more than 100,000 objects and lists" in str(error)


async def test_a_closed_client_leaves_no_open_session(client, caplog):
    lm = client(["hello"])
    await lm.complete(QUESTION)
    await lm.close()
    gc.collect()
    assert "Unclosed" not in caplog.text


async def test_a_request_after_a_lost_one_is_reported_before_it_is_sent(client):
    lost: list[int] = []
    token = requests_sent.set(RequestsSent(on_repeat=lost.append))
    try:
        await client([Says("one", breaks_after=20), Says("one", breaks_after=20), "two"]).complete(QUESTION)
    finally:
        requests_sent.reset(token)
    assert lost == [1, 2]
