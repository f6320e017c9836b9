"""`rlm_query` starts RLMs with kernels of their own, as deep as it may."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent import futures

import pytest

from rlm import RLM
from rlm.clients import BaseLM as ClientOfTheReference
from rlm_kernel.clients.registry import build
from rlm_kernel.clients.remote import MAX_OTHERS
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.engine.budget import Limits
from rlm_kernel.engine.config import Models
from rlm_kernel.errors import BudgetExceededError, ConfigError
from rlm_kernel.trajectory import events as said
from rlm_kernel.types import ModelUsageSummary, Reply, Usage, UsageSummary

COST = Usage(10, 5, cost=0.01)


def descending(fan_out):
    """A root whose children ask children: the context says how many levels are left."""

    def script(messages):
        text = messages[-1]["content"]
        if len(messages) < 3:  # the opening of a run
            return Reply(f"```repl\n{code}\n```", "m", COST)
        raise AssertionError(text)

    code = (
        "level = int(context)\n"
        f"FINAL(1 + sum(map(int, rlm_query_batched([str(level - 1)] * {fan_out}))) if level else 1)"
    )
    return ScriptedLM(script, model="m")


def unwrapped(event):
    depth = 0
    while isinstance(event, said.ChildEvent):
        event, depth = event.event, depth + 1
    return depth, event


async def test_three_levels_deep_the_sums_are_those_of_the_tree(run, events):
    lm = descending(3)
    completion = await run(lm, "3", None, max_depth=4, max_concurrent_subcalls=2)
    assert completion.response == str(1 + 3 + 9 + 27)
    assert len(lm.calls) == 40
    assert completion.usage_summary.total_calls == 40
    assert completion.usage_summary.total_cost == pytest.approx(0.40)
    children = [e.usage.cost for e in events if isinstance(e, said.SubcallAnswered)]
    assert children == pytest.approx([0.13] * 3)
    depths = Counter()
    for depth, event in map(unwrapped, events):
        depths[depth] += isinstance(event, said.RunFinished)
    assert depths == {0: 1, 1: 3, 2: 9, 3: 27}


async def test_sixteen_children_run_at_once(run):
    together = asyncio.Barrier(16)

    class Waits(ScriptedLM):
        async def complete(self, messages, **options):
            if "child" in messages[-1]["content"]:
                async with asyncio.timeout(60):
                    await together.wait()
            return await super().complete(messages, **options)

    lm = Waits(
        lambda messages: (
            "```repl\nFINAL(context)\n```"
            if "child" in messages[-1]["content"]
            else "```repl\nFINAL(len(rlm_query_batched([f'child {i}' for i in range(16)])))\n```"
        )
    )
    assert (await run(lm, "root", None, max_depth=2, max_concurrent_subcalls=16)).response == "16"


async def test_at_the_depth_limit_rlm_query_is_a_plain_call(run):
    lm = ScriptedLM(["```repl\nFINAL(rlm_query('plain?'))\n```", "a plain answer"])
    assert (await run(lm, max_depth=1)).response == "a plain answer"
    assert lm.calls[1].messages == ({"role": "user", "content": "plain?"},)


async def test_llm_query_goes_to_the_sub_model_at_every_depth(run):
    root = ScriptedLM(["```repl\nFINAL(rlm_query('go'))\n```", "```repl\nFINAL(llm_query('deep'))\n```"], model="root")
    sub = ScriptedLM(["from the sub-model"], model="sub")
    completion = await run(root, others=(sub,), max_depth=2)
    assert completion.response == "from the sub-model"
    assert sub.calls[0].prompt == "deep"


async def test_a_child_runs_on_the_model_of_its_parent_or_on_the_one_named(run):
    ask = "```repl\nFINAL((rlm_query('a'), rlm_query('b', model='sub')))\n```"
    root = ScriptedLM([ask, "```repl\nFINAL('root')\n```"], model="root")
    sub = ScriptedLM(["```repl\nFINAL('sub')\n```"], model="sub")
    assert (await run(root, others=(sub,), max_depth=2)).response == "('root', 'sub')"


def served(request):
    """An OpenAI-compatible server: the model `big` asks for a child on `small`, whose own child is plain."""
    model, begun = request.body["model"], len(request.messages) > 1
    ask = {"big": "FINAL(rlm_query('x', model='small'))", "small": "FINAL(rlm_query('y', model='tiny'))"}
    return f"```repl\n{ask[model]}\n```" if begun else f"plain words of {model}"


def test_a_child_runs_on_any_model_of_the_backend(provider):
    provider.script = served
    with RLM("openai", {**provider.backend_kwargs, "model_name": "big"}, max_depth=2) as rlm:
        completion = rlm.completion("x", "q")
    assert completion.response == "plain words of tiny"
    assert [request.body["model"] for request in provider.requests if request.body] == ["big", "small", "tiny"]
    assert completion.usage_summary.model_usage_summaries.keys() == {"big", "small", "tiny"}


PRICES = {"prices": {"input": 1, "output": 1}}
ASK_PRICEY = (
    "```repl\ntry: FINAL(rlm_query('x', model='pricey'))\nexcept Exception as e: FINAL(f'{e} {budget().cost > 4}')\n```"
)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_budget_admits_no_model_that_it_cannot_count(provider, depth):
    provider.script = lambda _: ASK_PRICEY
    kwargs = {**provider.backend_kwargs, "model_name": "big", **PRICES}
    with RLM("openai", kwargs, max_depth=depth, max_budget=5.0) as rlm:
        answer = rlm.completion("x", "q").response
    assert "the price of 'pricey' is unknown, so max_budget cannot count it. Known: 'big'. The user can add" in answer
    assert {request.body["model"] for request in provider.requests} == {"big"}


def test_a_model_that_the_user_gave_prices_is_counted(provider):
    provider.script = lambda request: "plain" if request.body["model"] == "pricey" else ASK_PRICEY
    kwargs = [{**provider.backend_kwargs, "model_name": name, **PRICES} for name in ("big", "pricey")]
    with RLM(
        "openai", kwargs[0], other_backends=["openai"], other_backend_kwargs=kwargs[1:], max_depth=1, max_budget=5.0
    ) as rlm:
        completion = rlm.completion("x", "q")
    assert completion.response == "plain"
    assert completion.usage_summary.model_usage_summaries["pricey"].total_cost > 0


def test_a_model_whose_replies_report_no_cost_has_one_call(provider):
    """OpenRouter reports the cost with each reply, this server does not."""
    ask = "x = rlm_query('x', model='pricey')\ntry: rlm_query('y', model='pricey')\nexcept Exception as e: FINAL(e)"
    provider.script = lambda request: "plain" if request.body["model"] == "pricey" else f"```repl\n{ask}\n```"
    kwargs = {**provider.backend_kwargs, "model_name": "big", **PRICES}
    with RLM("openrouter", kwargs, max_depth=1, max_budget=5.0) as rlm:
        assert "the price of 'pricey' is unknown" in rlm.completion("x", "q").response
    assert [request.body["model"] for request in provider.requests] == ["big", "pricey"]


def test_a_child_that_names_the_model_of_the_root_gets_it_with_its_prices():
    root = build("openai", {"model_name": "m", "api_key": "sk-0", **PRICES}, {})
    assert root.for_model("other").for_model("m") is root
    assert root.for_model("other").for_model("third") is root.for_model("third")


def test_a_child_on_the_roots_model_has_its_sampling_and_not_that_of_sub_calls(provider):
    replies = iter(["```repl\nx = rlm_query('a', model='big')\n```", "```repl\nFINAL(7)\n```", "FINAL_VAR(x)"])
    provider.script = lambda _: next(replies)
    sampling = {"sampling_args": {"seed": 1}, "sub_sampling_args": {"seed": 2}}
    with RLM("openai", {**provider.backend_kwargs, "model_name": "big"}, max_depth=2, **sampling) as rlm:
        assert rlm.completion("x", "q").response == "7"
    assert [request.body["seed"] for request in provider.requests] == [1, 1, 1]


def test_a_model_of_a_backend_that_has_no_others_is_an_error_that_lists_the_known():
    lm = ScriptedLM(["```repl\nrlm_query('x', model='small')\n```", "FINAL(x)"], model="only")
    RLM(lm, max_depth=2).completion("x", "q")
    assert "there is no model 'small'. Known: 'only'." in lm.calls[1].prompt


@pytest.mark.parametrize("name", ["", " ", "m" * 201, "a\nb"])
def test_what_cannot_be_the_name_of_a_model_is_none(name):
    root = build("openai", {"model_name": "m", "api_key": "sk-0"}, {})
    assert Models(root).for_child(name, has_repl=True) is None
    assert Models(root).for_child("other", has_repl=True).model == "other"


@pytest.mark.parametrize(
    ("root", "name", "allowed"),
    [
        ("@mine/big", "@mine/small", True),
        ("@mine/big", "small", True),
        ("@mine/big", "@other-team/opus", False),
        ("@mine/big", " @other-team/opus", False),
        ("@mine/big", "@other-team", False),
        ("@mine/big", "@mine/../@other/opus", True),  # the provider ends at the first slash
        ("big", "@other-team/opus", False),
        ("big", "claude@20251001", True),
    ],
)
def test_a_cell_chooses_no_provider_and_no_key_of_a_gateway(root, name, allowed):
    lm = build("portkey", {"model_name": root, "api_key": "key-of-the-gateway"}, {})
    if allowed:
        assert lm.for_model(name).model == name
        return
    with pytest.raises(ConfigError, match="chooses another provider and key of the gateway"):
        lm.for_model(name)
    with pytest.raises(ConfigError, match="chooses another provider"):
        lm.for_model("small").for_model(name)


@pytest.mark.parametrize("version", ["v1", "2024-10-21"])
@pytest.mark.parametrize("name", ["..", ".", "a/b", "%2e%2e", "a?x=1", "a#b", "-._", "a b", "ä"])
def test_a_cell_names_only_deployments_of_azure(name, version):
    kwargs = {"model_name": "m", "api_key": "sk-0", "base_url": "https://a.example", "api_version": version}
    lm = build("azure_openai", kwargs, {})
    with pytest.raises(ConfigError, match="cannot be the name of a deployment: use letters, digits"):
        lm.for_model(name)
    assert lm.for_model("gpt-5.1_mini").model == "gpt-5.1_mini"


def test_the_models_that_cells_may_name_are_few():
    lm = build("openai", {"model_name": "m", "api_key": "sk-0"}, {})
    for number in range(MAX_OTHERS):
        assert lm.for_model(f"m{number}").model == f"m{number}"
    assert lm.for_model("m0") is lm.for_model("m0")
    with pytest.raises(ConfigError, match="16 models were named"):
        lm.for_model("one more")


class Stops(ClientOfTheReference):
    """Raises what stops a task or a generator, although nobody stops it."""

    def __init__(self, error):
        super().__init__("sub")
        self.error = error

    def completion(self, _):
        raise self.error

    async def acompletion(self, prompt):
        return self.completion(prompt)

    def get_usage_summary(self):
        return UsageSummary()

    def get_last_usage(self):
        return ModelUsageSummary()


class StopsAtOnce(Stops):
    async def complete(self, *_, **__):
        raise self.error


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError("x"), GeneratorExit("x"), futures.CancelledError("x")], ids=repr
)
@pytest.mark.parametrize("kind", [Stops, StopsAtOnce])
def test_a_model_that_raises_a_stop_is_an_error_in_the_cell(kind, error):
    cell = (
        "try: llm_query('x')\nexcept Exception as e: print(e)\n"
        "print(llm_query_batched(['x', 'y'])[1])\ntry: rlm_query('x', model='sub')\nexcept Exception as e: FINAL(e)"
    )
    root = ScriptedLM([f"```repl\n{cell}\n```"])
    with RLM(root, other_backends=[kind(error)], max_depth=2, max_timeout=60) as rlm:
        assert "CancelledError" in (answer := rlm.completion("x").response) or "GeneratorExit" in answer


@pytest.mark.everywhere
async def test_a_child_that_fails_is_a_failed_call_and_the_parent_goes_on(run):
    root = ScriptedLM(["```repl\nrlm_query('go', model='sub')\n```", "FINAL(went on)"], model="root")
    sub = ScriptedLM(["```repl\n1/0\n```"] * 5, model="sub")
    completion = await run(root, others=(sub,), max_depth=2, limits=Limits(max_errors=2))
    assert completion.response == "went on"
    assert "2 cells in a row raised" in root.calls[1].prompt


async def test_the_budget_is_one_for_the_tree(run):
    lm = descending(3)
    with pytest.raises(BudgetExceededError) as raised:
        await run(lm, "3", None, max_depth=4, limits=Limits(max_budget=0.105))
    assert 0.105 <= raised.value.spent < 0.105 + 0.01
    assert raised.value.usage.total_cost == pytest.approx(raised.value.spent)
