"""The sums of a root are those of its tree: recomputed here from the events, three levels deep and sixteen at once."""

from __future__ import annotations

import asyncio

import pytest
from selection import mostly_full

from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.engine.budget import Limits
from rlm_kernel.errors import BudgetExceededError, LMError, TokenLimitExceededError
from rlm_kernel.trajectory import events as said
from rlm_kernel.types import Reply, Usage, UsageMeter

CENT = 1 / 128
"""Prices are multiples of it: their sums are exact."""

LEVELS = {"root": ("a", 2), "a": ("b", 2), "b": ("leaf", 4)}
"""Who asks whom, and how many: sixteen leaves, three levels below the root."""

INNER = (
    f"below, count = {LEVELS}[context.split(':')[0]]\n"
    "llm_query('a word before that')\n"
    "total = sum(map(int, rlm_query_batched([f'{below}: {i} of {context}' for i in range(count)])))"
)
LEAF = (
    "llm_query('everybody waits, ' + context)\n"
    "answers = llm_query_batched([*'abcd', 'fail'], model='other')\n"
    "rlm_query('as deep as it gets, so a plain call')\n"
    "total = sum(text == 'ok' for text in answers)"
)


class Family(ScriptedLM):
    """Leads runs and answers plain calls, each reply at a price of its own; some wait until all are here."""

    def __init__(self, model, price=lambda call: CENT * (call % 7), together=None):
        super().__init__(self.reply, model=model, delay=0.001)
        self.costs, self.together, self.took = price, together, []

    async def complete(self, messages, **options):
        if self.together is not None and "everybody waits" in messages[-1]["content"]:
            async with asyncio.timeout(60):
                await self.together.wait()
        reply = await super().complete(messages, **options)
        self.took.append(reply.usage)
        return reply

    def reply(self, messages):
        text = messages[-1]["content"]
        if text == "fail":
            return LMError("no answer", backend="b", model=self.model, status=500)
        if messages[0]["role"] != "system":
            words = "ok"
        elif len(messages) > 2:
            words = "FINAL_VAR(total)"
        else:
            words = f"```repl\n{LEAF if 'leaf:' in text else INNER}\n```"
        call = len(self.calls)
        return Reply(words, self.model, Usage(10 + call, 3, 1, cost=self.costs(call)))


def unwrapped(events):
    """Every event of the tree, with the path to the run it happened in: the prompts that were handed down."""
    for said_first in events:
        path, event = (), said_first
        while isinstance(event, said.ChildEvent):
            path, event = (*path, (event.cell, event.query, event.index)), event.event
        yield path, event


def calls_of(events):
    """The calls of models in the tree: path of the run, model, usage. What a child answered is its own calls' sum."""
    leads = {path: event.model for path, event in unwrapped(events) if isinstance(event, said.RunStarted)}
    for path, event in unwrapped(events):
        if isinstance(event, said.ModelReplied | said.Compacted):
            yield path, leads[path], event.reply.usage
        elif isinstance(event, said.SubcallAnswered):
            handed_down = (*path, (event.cell, event.query, event.index)) in leads
            if event.error is None and not handed_down:
                yield path, event.model, event.usage


def summed(calls):
    meter = UsageMeter()
    for _, model, usage in calls:
        meter.add(model, usage)
    return meter.summary().model_usage_summaries


async def test_three_levels_deep_and_sixteen_at_once_every_run_is_the_sum_of_its_events(run, events):
    root, sub, other = Family("root"), Family("sub", together=asyncio.Barrier(16)), Family("other")
    completion = await run(root, "root:", None, others=(sub, other), max_depth=4)
    assert completion.response == str(16 * 4)

    calls = list(calls_of(events))
    took = [usage for lm in (root, sub, other) for usage in lm.took]
    usage = completion.usage_summary
    assert usage.model_usage_summaries == summed(calls)
    assert (usage.total_calls, usage.total_input_tokens) == (len(took), sum(u.input_tokens for u in took))
    assert usage.total_cost == sum(u.cost for u in took) > 0

    runs = {path: event.completion for path, event in unwrapped(events) if isinstance(event, said.RunFinished)}
    assert sorted(map(len, runs)) == [0, 1, 1, *[2] * 4, *[3] * 16]
    for path, completion in runs.items():
        below = [call for call in calls if call[0][: len(path)] == path]
        assert completion.usage_summary.model_usage_summaries == summed(below)


async def test_what_a_child_took_is_on_its_answer(run, events):
    root, sub, other = Family("root"), Family("sub"), Family("other")
    await run(root, "b:", None, others=(sub, other), max_depth=2)
    answered = {(e.cell, e.query, e.index): e.usage for e in events if isinstance(e, said.SubcallAnswered)}
    children = {path[0]: event for path, event in unwrapped(events) if path and isinstance(event, said.RunFinished)}
    assert len(children) == 4
    assert all(answered[key] == event.completion.usage_summary.total for key, event in children.items())


@pytest.mark.parametrize("budget", mostly_full([13 * CENT, 40 * CENT, 100 * CENT], 40 * CENT))
async def test_a_tree_overshoots_its_budget_by_at_most_one_call(run, budget):
    family = [Family(name, lambda _, n=n: n * CENT) for n, name in enumerate(("root", "sub", "other"), 1)]
    with pytest.raises(BudgetExceededError) as raised:
        await run(family[0], "root:", None, others=family[1:], max_depth=4, limits=Limits(max_budget=budget))
    spent = sum(usage.cost for lm in family for usage in lm.took)
    assert raised.value.spent == raised.value.usage.total_cost == spent
    assert budget <= spent < budget + 3 * CENT


async def test_a_tree_overshoots_its_tokens_by_at_most_one_call(run):
    family = [Family(name) for name in ("root", "sub", "other")]
    with pytest.raises(TokenLimitExceededError) as raised:
        await run(family[0], "root:", None, others=family[1:], max_depth=4, limits=Limits(max_tokens=1_500))
    took = [usage.input_tokens + usage.output_tokens for lm in family for usage in lm.took]
    assert raised.value.tokens_used == sum(took)
    assert 1_500 <= sum(took) < 1_500 + max(took) + len(took)  # each call takes a token more than the one before it


async def test_what_a_failed_child_took_is_counted_too(run, events):
    price = Usage(10, 5, cost=CENT)
    root = ScriptedLM(
        [
            Reply("```repl\nprint(rlm_query_batched(['go'], model='sub'))\n```", "root", price),
            Reply("FINAL(on)", "root", price),
        ],
        model="root",
    )
    sub = ScriptedLM(lambda _: Reply("```repl\n1/0\n```", "sub", price), model="sub")
    completion = await run(root, others=(sub,), max_depth=2, limits=Limits(max_errors=2))
    assert "2 cells in a row raised" in root.calls[1].prompt
    assert completion.usage_summary.model_usage_summaries == summed(calls_of(events))
    assert completion.usage_summary.total_cost == 4 * CENT
