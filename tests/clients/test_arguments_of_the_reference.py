"""Arguments of clients as programs for the reference give them: what reaches the server."""

from __future__ import annotations

import pytest
from backends_on_loopback import KEY, client_of

from rlm import RLM, ScriptedLM
from rlm.clients import get_client
from rlm_kernel._async import Job
from rlm_kernel.clients.registry import build
from rlm_kernel.errors import ConfigError

QUESTION = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture
async def ask(provider):
    """Ask a backend once, and return the request that the server got."""

    async def once(backend="openai", **given):
        provider.script = ["hello"]
        lm = client_of(backend, provider, **given)
        try:
            await lm.complete(QUESTION)
        finally:
            await lm.close()
        return provider.requests[-1]

    return once


@pytest.mark.parametrize("backend", ["openai", "anthropic", "portkey"])
async def test_headers_and_query_of_the_user_are_sent(ask, backend):
    request = await ask(backend, default_headers={"X-Team": "blue"}, default_query={"region": "eu"})
    assert request.headers["x-team"] == "blue"
    assert "region=eu" in request.path


async def test_organization_and_project_are_sent_where_the_user_says(ask):
    headers = (await ask(organization="org-1", project="proj-1")).headers
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj-1")


async def test_a_client_for_http_of_the_user_is_used(ask):
    import httpx

    sent = []

    async def note(request):
        sent.append(request.url.path)

    async with httpx.AsyncClient(event_hooks={"request": [note]}) as client:
        await ask(http_client=client)
    assert "/v1/chat/completions" in sent


async def test_the_limit_of_a_reply_and_further_fields_may_be_in_sampling_args(ask):
    body = (await ask(max_tokens=9, sampling_args={"max_tokens": 77, "extra_body": {"top_k": 5}, "seed": None})).body
    assert (body["max_tokens"], body["top_k"]) == (77, 5)
    assert "seed" not in body
    with pytest.raises(ConfigError, match=r"sampling_args\['max_tokens'\] must be a whole number"):
        build("openai", {"model_name": "m", "api_key": KEY, "sampling_args": {"max_tokens": "many"}}, {})


async def test_a_dated_version_of_azure_asks_the_deployment(provider):
    provider.script = ["hello"]
    endpoint = provider.base_url.removesuffix("/v1")
    given = {"azure_endpoint": endpoint, "api_version": "2024-02-01", "azure_deployment": "mine"}
    lm = build("azure_openai", {"model_name": "gpt-5", "api_key": KEY, **given}, {})
    assert (lm.model, lm.adapter.build_request([], 9)["model"]) == ("gpt-5", "gpt-5")
    assert lm.adapter.url == f"{endpoint}/openai/deployments/mine"
    assert (lm.adapter.default_query, lm.adapter.headers["api-key"]) == ({"api-version": "2024-02-01"}, KEY)


async def test_the_undated_version_of_azure_has_the_deployment_in_the_body_and_reports_the_model(provider):
    provider.script = ["```repl\nprint(llm_query('q', model='gpt-5'))\n```", "sub", "FINAL(done)"]
    given = {"model_name": "gpt-5", "azure_deployment": "mine", "base_url": provider.base_url, "api_key": KEY}
    done = RLM("azure_openai", given).completion("x")
    assert [request.body["model"] for request in provider.requests] == ["mine"] * 3
    assert (done.root_model, list(done.usage_summary.model_usage_summaries)) == ("gpt-5", ["gpt-5"])


AZURE = {"AZURE_OPENAI_API_KEY": KEY, "AZURE_OPENAI_ENDPOINT": "https://a.example"}


@pytest.mark.parametrize(
    ("given", "env", "url", "version"),
    [
        ({"azure_endpoint": "https://a.example/", "api_key": KEY}, {}, "/openai/deployments/m", "2024-02-01"),
        ({}, AZURE, "/openai/deployments/m", "2024-02-01"),
        ({}, {**AZURE, "AZURE_OPENAI_API_VERSION": "2025-01-01"}, "/openai/deployments/m", "2025-01-01"),
        ({}, {**AZURE, "AZURE_OPENAI_DEPLOYMENT": "mine"}, "/openai/deployments/mine", "2024-02-01"),
        (
            {"azure_deployment": "other"},
            {**AZURE, "AZURE_OPENAI_DEPLOYMENT": "mine"},
            "/openai/deployments/other",
            "2024-02-01",
        ),
        ({"api_version": "v1"}, AZURE, "/openai/v1", None),
        ({"base_url": "https://a.example", "api_key": KEY}, {}, "/openai/v1", None),
        ({}, {**AZURE, "AZURE_OPENAI_ENDPOINT": "https://a.example/openai/v1"}, "/openai/v1", None),
    ],
)
def test_azure_has_the_variables_and_the_version_of_the_reference(given, env, url, version):
    adapter = build("azure_openai", {"model_name": "m", **given}, env).adapter
    assert adapter.url == f"https://a.example{url}"
    assert (adapter.default_query or {}).get("api-version") == version


def test_another_model_of_azure_is_another_deployment():
    lm = build("azure_openai", {"model_name": "m", "azure_deployment": "mine"}, AZURE)
    assert lm.for_model("other").adapter.url == "https://a.example/openai/deployments/other"


def test_vercel_and_gemini_need_what_they_needed_there():
    vercel = build("vercel", {"model_name": "openai/gpt-5"}, {"AI_GATEWAY_API_KEY": KEY})
    assert vercel.adapter.url == "https://ai-gateway.vercel.sh/v1"
    assert build("gemini", {}, {"GEMINI_API_KEY": KEY}).model == "gemini-2.5-flash"


def test_sampling_of_sub_calls_goes_to_the_first_of_the_other_backends():
    kwargs = {"model_name": "m", "api_key": KEY}
    rlm = RLM("openai", kwargs, other_backends=["openai"], other_backend_kwargs=[kwargs], sub_sampling_args={"seed": 1})
    root, sub = rlm.config.models.root, rlm.config.models.default
    assert (root.adapter.sampling_args, sub.adapter.sampling_args) == ({}, {"seed": 1})


def test_a_header_of_the_user_is_in_no_message_and_no_log():
    lm = build("openai", {"model_name": "m", "api_key": KEY, "default_headers": {"X-Api-Key": "other-secret"}}, {})
    assert lm.adapter.redact("got other-secret") == "got [api key]"
    from rlm_kernel.engine.argument_checks import keys_of

    kwargs = {"model_name": "m", "api_key": KEY, "default_headers": {"X-Api-Key": "other-secret"}}
    assert keys_of(RLM("openai", kwargs).config) >= {KEY, "other-secret"}


def test_max_calls_caps_the_sub_calls_of_the_tree_and_the_run_goes_on():
    cell = "got = llm_query_batched(['a', 'b', 'c'])\ntry: llm_query('d')\nexcept Exception as e: FINAL((got, str(e)))"
    sub = ScriptedLM(lambda _: "ok", model="sub")
    answer = RLM(ScriptedLM([f"```repl\n{cell}\n```"]), other_backends=[sub], max_calls=2).completion("x").response
    assert len(sub.calls) == 2
    assert answer.count("'ok'") == 2
    assert answer.count("no sub-call is left (max_calls)") == 2
    with pytest.raises(ConfigError, match="max_calls must be a whole number, 0 or more"):
        RLM(ScriptedLM([]), max_calls=-1)


async def test_a_client_answers_with_another_model_of_its_provider(provider):
    provider.script = ["one", "two", "three"]
    client = get_client("openai", {"model_name": "m", **provider.backend_kwargs})
    assert client.completion("x") == "one"
    assert client.completion("x", model="other") == "two"
    assert await client.acompletion([{"role": "user", "content": "x"}], "other") == "three"
    assert [request.body["model"] for request in provider.requests][1:] == ["other", "other"]
    calls = {name: used.total_calls for name, used in client.get_usage_summary().model_usage_summaries.items()}
    assert calls == {client.model_name: 1, "other": 2}
    await Job(client.close()).wait_async()
