"""No key is ever seen: not in an error or its traceback, a log, a warning, a repr, or what is printed.

Every backend meets every fault, the key is repeated by the provider wherever it can be, and all loggers of the process
listen at the level DEBUG.
"""

from __future__ import annotations

import json
import logging
import traceback
import warnings

import pytest
from backends_on_loopback import KEY, MODELS, REMOTE, client_of, closed, each_backend
from loopback import MODEL, Fails, Hangs, Says, Sends
from selection import mostly_full

from rlm_kernel.clients.registry import build
from rlm_kernel.errors import ConfigError, LMError

PORTKEYS = [("portkey", "virtual_key"), ("portkey", "Authorization")]
QUESTION = [{"role": "user", "content": "Who are you?"}]
PAGE = f"<html>{'x' * 470} The key {KEY} is wrong</html>"

FAULTS = {
    **{
        f"{status}": Fails(status, f"Wrong key: {KEY}") for status in (400, 401, 402, 403, 404, 413, 422, 429, 500, 529)
    },
    "code": Fails(401, "Wrong", code=KEY, type=KEY),
    "detail": Fails(422, body={"detail": [{"input": KEY}]}),
    "page": Sends(PAGE.encode(), status=403, content_type="text/html"),
    "no reply": Sends(PAGE.encode(), content_type="text/html"),
    "error with status 200": Sends(json.dumps({"error": {"message": KEY}}).encode()),
    "malformed": Sends(f'{{"{KEY}'.encode()),
    "event": Sends(
        f'event: error\ndata: {{"type": "error", "error": {{"message": "{KEY}"}}}}\n\n'.encode(),
        content_type="text/event-stream",
    ),
    "break": Says(f"one {KEY} three", breaks_after=1),
    "timeout": Hangs(),
}


@pytest.fixture
def seen(caplog, capsys):
    """All that a user could see until now, in one text."""
    caplog.set_level(logging.DEBUG)

    def texts(*more):
        logged = [f"{record.getMessage()}\n{record.exc_text or ''}" for record in caplog.records]
        return "\n".join([*logged, *capsys.readouterr(), *map(str, more)])

    return texts


@pytest.mark.parametrize("on_text", [None, [].append], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", mostly_full(FAULTS, "400", "401", "429", "500", "page", "no reply", "event", "break"))
@pytest.mark.parametrize("backend", each_backend())
async def test_no_fault_shows_the_key(backend, fault, on_text, provider, seen):
    step = FAULTS[fault]
    provider.script, provider.models = [step], [{"id": KEY}]
    lm = client_of(backend, provider, max_retries=0, timeout=0.5 if isinstance(step, Hangs) else 20)
    with warnings.catch_warnings(record=True) as warned, pytest.raises(LMError) as caught:
        await lm.complete(QUESTION, on_text=on_text)
    await closed(lm)
    error = caught.value
    told = [repr(lm), repr(error), error.request_id, *traceback.format_exception(error), *(w.message for w in warned)]
    assert KEY not in seen(*told)


async def test_a_request_id_that_is_the_key_is_not_kept(provider):
    provider.script = [Fails(400, "Wrong", request_id=KEY)]
    lm = client_of("openai", provider)
    with pytest.raises(LMError) as caught:
        await lm.complete(QUESTION)
    await lm.close()
    assert caught.value.request_id == "[api key]"


@pytest.mark.parametrize("backend", each_backend())
async def test_a_reply_shows_the_key_in_no_log(backend, provider, seen):
    provider.script = lambda _: "hello"
    lm = client_of(backend, provider)
    for on_text in (None, [].append):
        await lm.complete(QUESTION, on_text=on_text)
    await closed(lm)
    assert KEY not in seen(lm)


CORPORATE = "X-Corp-Token: corporate-secret\nAuthorization: Bearer corporate-secret\nX-Api-Key: corporate-secret"
OF_THE_ENVIRONMENT = {
    "ANTHROPIC_CUSTOM_HEADERS": CORPORATE,
    "OPENAI_CUSTOM_HEADERS": CORPORATE,
    "OPENAI_ORG_ID": "corporate-secret",
    "OPENAI_PROJECT_ID": "corporate-secret",
}


@pytest.mark.parametrize("backend", [each for each in each_backend() if each.values[0] != "litellm"])
async def test_headers_that_an_sdk_takes_from_the_environment_are_not_sent(backend, provider, monkeypatch):
    for name, value in OF_THE_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    provider.script = ["hello"]
    lm = client_of(backend, provider)
    await lm.complete(QUESTION)
    await lm.close()
    assert "corporate-secret" not in str(provider.requests[0].headers)
    assert KEY in str(provider.requests[0].headers)


@pytest.mark.parametrize(("backend", "argument"), [*((name, "api_key") for name in REMOTE), *PORTKEYS])
@pytest.mark.parametrize("key", [f"{KEY} copied with more", f"{KEY}\n", f"{KEY}…", f"  {KEY}  "])
def test_a_key_that_cannot_be_sent_is_not_shown(backend, argument, key):
    given = {
        "model_name": MODELS.get(backend, MODEL),
        "base_url": "http://localhost:1/v1",
        "api_key": KEY,
        argument: key,
    }
    try:
        shown = repr(build(backend, given, {}))
    except ConfigError as refused:
        shown = str(refused)
    assert KEY not in shown


@pytest.mark.parametrize("backend", REMOTE)
@pytest.mark.parametrize("given", [{"api_key": [KEY]}, [("api_key", KEY)], {"model_nam": "m", "api_key": KEY}], ids=str)
def test_arguments_that_are_refused_do_not_show_the_key(backend, given):
    with pytest.raises(ConfigError) as refused:
        build(backend, given, {})
    assert KEY not in str(refused.value)
