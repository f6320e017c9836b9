"""What a provider does to the user who asks it."""

from __future__ import annotations

import pytest
from backends_on_loopback import closed, marks
from hostile.keys_on_loopback import KEY, QUESTION, Listener, each_backend, model_of

from rlm_kernel.clients.registry import BACKENDS, build
from rlm_kernel.errors import LMError

BY_LITELLM = ("anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash", "groq/m", "openrouter/x/y")


async def redirected(row, model, status):
    """What reaches another server when the provider redirects, and the error."""
    with Listener() as other, Listener(status, f"http://{other.host.replace('127.0.0.1', 'localhost')}") as provider:
        lm = build(row.name, {"model_name": model, "api_key": KEY, "base_url": provider.url, "max_retries": 0}, {})
        with pytest.raises(LMError) as caught:
            await lm.complete(QUESTION)
        await closed(lm)
        assert provider.seen, caught.value
        return other.seen, str(caught.value)


@pytest.mark.parametrize("status", [302, 307, 308])
@each_backend
async def test_a_redirect_takes_neither_key_nor_input_along(row, status):
    seen, message = await redirected(row, model_of(row), status)
    assert seen == []
    assert "the server redirects to http://localhost:" in message
    assert "No redirect is followed, so that the key goes to no other server" in message


@pytest.mark.filterwarnings("ignore:Items '.*' on TypedDict:UserWarning")
@pytest.mark.parametrize("model", [pytest.param(model, marks=marks("litellm")) for model in BY_LITELLM])
async def test_a_redirect_takes_nothing_along_with_any_provider_of_litellm(model):
    seen, _ = await redirected(BACKENDS["litellm"], model, 307)
    assert seen == []
