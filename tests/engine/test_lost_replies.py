"""Requests that the SDK repeats: the provider may charge each one, also if only the last has a reply."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import openai
import pytest
from loopback import Fails, Hangs, LoopbackProvider, Says, Step

from rlm_kernel.api import RLM
from rlm_kernel.clients.estimates import bound
from rlm_kernel.errors import LMError, TimeoutExceededError
from rlm_kernel.types import UsageSummary

REPLY = Says("forty two", usage=(10, 2))
CUT = Says("forty two", breaks_after=20)
MAX_TOKENS = 100
LOST = bound([{"role": "user", "content": "What?"}], reply_tokens=MAX_TOKENS).tokens


def usage_of(provider: LoopbackProvider, steps: Sequence[Step], **options: float) -> UsageSummary:
    """The usage of a completion that is one plain call."""
    provider.script = steps
    kwargs = {**provider.backend_kwargs, "max_tokens": MAX_TOKENS, **options}
    with RLM(backend="openai", backend_kwargs=kwargs, max_depth=0) as rlm:
        try:
            return rlm.completion("What?").usage_summary
        except LMError as error:
            return error.run_usage or UsageSummary()


@pytest.mark.parametrize(
    ("steps", "lost"),
    [
        ([REPLY], 0),
        ([Fails(429, retry_after=0), Fails(500), REPLY], 0),
        ([CUT, REPLY], 1),
        ([CUT, Fails(504), REPLY], 2),
        ([Fails(500), CUT, REPLY], 1),
    ],
)
def test_a_reply_is_counted_with_the_lost_ones_before_it(
    provider: LoopbackProvider, steps: Sequence[Step], lost: int
) -> None:
    usage = usage_of(provider, steps)

    assert usage.estimated_tokens == lost * LOST
    assert usage.total.input_tokens + usage.total.output_tokens == 12 + lost * LOST
    assert usage.total_calls == 1


@pytest.mark.parametrize(
    ("steps", "lost"),
    [
        ([Fails(500)] * 3, 0),
        ([CUT, CUT, Fails(500)], 2),
        ([Fails(429, retry_after=0), Fails(500), CUT], 1),
        ([Fails(500), Hangs(), Fails(500)], 1),
    ],
)
def test_without_a_reply_only_what_was_lost_is_counted(
    provider: LoopbackProvider, steps: Sequence[Step], lost: int
) -> None:
    usage = usage_of(provider, steps, timeout=0.5)

    assert usage.estimated_tokens == usage.total.input_tokens + usage.total.output_tokens == lost * LOST


def test_the_lookup_of_the_window_is_no_part_of_the_call(provider: LoopbackProvider) -> None:
    provider.models_hang = True

    assert usage_of(provider, [REPLY]).estimated_tokens == 0


@pytest.fixture(params=["aiohttp", "httpx"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The HTTP client of the SDK."""
    if request.param == "httpx":
        monkeypatch.setattr(openai, "DefaultAioHttpClient", openai.DefaultAsyncHttpxClient)


def usage_of_a_stopped_call(base_url: str) -> UsageSummary:
    kwargs = {"model_name": "loopback-model", "base_url": base_url, "api_key": "loopback-key", "max_tokens": MAX_TOKENS}
    rlm = RLM(backend="openai", backend_kwargs=kwargs, max_depth=0, max_timeout=1)
    with rlm, pytest.raises(TimeoutExceededError) as stopped:
        rlm.completion("What?")
    return stopped.value.run_usage or UsageSummary()


@pytest.mark.usefixtures("transport")
def test_a_request_that_is_stopped_while_it_connects_is_not_counted() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # no further one is accepted
            usage = usage_of_a_stopped_call(f"http://127.0.0.1:{port}/v1")

    assert usage.estimated_tokens == 0


@pytest.mark.usefixtures("transport")
def test_a_request_that_is_stopped_after_it_was_sent_is_counted(provider: LoopbackProvider) -> None:
    provider.script = [Hangs()]

    assert usage_of_a_stopped_call(provider.base_url).estimated_tokens == LOST
