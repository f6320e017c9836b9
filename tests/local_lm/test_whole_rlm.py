"""Compaction, a child and a tool with recorded replies, in a window of 2,048 tokens. What the engine did is looked at.

A model of 1.5 billion parameters copies the last example it was shown, so each run is shown one that fits.
"""

from __future__ import annotations

from typing import get_args

import pytest

from rlm import RLM, PromptProfile
from rlm_kernel.clients.llamacpp.client import LlamaCppLM
from rlm_kernel.prompts.context_preview import Form
from rlm_kernel.prompts.few_shot import Example, Step
from rlm_kernel.trajectory import events as said

pytestmark = pytest.mark.timeout(600)

SYSTEM = """\
You answer a question about the Python variable `context`, step by step in a Python notebook.
Reply with exactly one code block per turn:
```repl
...python code...
```
The next message shows its output; variables stay. When all steps are done, reply with one line only: FINAL(answer)"""


def example(cues, context, question, *steps, answer):
    return Example(get_args(Form), cues, context, question, tuple(Step(*step) for step in steps), answer)


STEP_BY_STEP = example(
    "lines",
    "5 cars\n6 cars\n2 cars",
    "Print the context. Then print how many lines it has, and answer.",
    ("print(context)", "5 cars\n6 cars\n2 cars"),
    ("print(len(context.splitlines()), 'lines')", "3 lines"),
    answer="3 lines",
)
ASK = example(
    "Ask|child|How|many|letters|has|word",
    "Some notes.",
    "Ask a child: How many letters has the word tree?",
    ("print(rlm_query('How many letters has the word tree?'))", "4"),
    answer="4",
)
COUNT = example(
    "How|many|letters|has|word",
    "How many letters has the word boat?",
    "How many letters has the word boat?",
    ("print(len('boat'))", "4"),
    answer="4",
)
CALL = example(
    "return",
    "Some notes.",
    "What does fetch_price('tea') return?",
    ("print(fetch_price('tea'))", "3 dollars"),
    answer="3 dollars",
)


@pytest.fixture
async def lm(model):
    client = LlamaCppLM(base_url=model.base_url, n_ctx=2048)
    yield client
    await client.close()


@pytest.fixture
def told_by(lm):
    """Run a completion and return its events; the last one holds the answer."""

    async def run(context, question, *examples, **options):
        profile = PromptProfile(
            name="shown how",
            style="brief",
            system=SYSTEM,
            examples=examples,
            shown_examples=1,
            reply_tokens=150,
            sub_reply_tokens=60,
            output_characters=1_500,
            preview_characters=100,
            question_lines=0,
        )
        rlm = RLM(lm, prompts=profile, **{"max_iterations": 8, **options})
        return [event async for event in rlm.stream(context, question)]

    return run


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


async def test_a_run_that_outgrows_its_window_is_summarised_and_answers(told_by):
    events = await told_by(
        "\n".join(f"{n * 7 % 50} pears" for n in range(34)),
        "Print the context. Then print how many lines it has, and answer.",
        STEP_BY_STEP,
        compaction=True,
        compaction_threshold_pct=0.2,
        max_iterations=2,
    )
    summary, *_ = of(said.Compacted, events)
    before = [e.reply.usage for e in of(said.ModelReplied, events) if e.time < summary.time]
    after = [e.reply.usage for e in of(said.ModelReplied, events) if e.time > summary.time]
    assert before[-1].input_tokens + before[-1].output_tokens >= 0.2 * 2048
    assert after[0].input_tokens < before[-1].input_tokens
    assert "34" in events[-1].completion.response


async def test_a_child_answers(told_by):
    question = "Ask a child: How many letters has the word kangaroos?"
    events = await told_by("Some notes.", question, ASK, COUNT, max_depth=2)
    within = [child.event for child in of(said.ChildEvent, events)]
    (answered,) = of(said.SubcallAnswered, events)
    (child,) = of(said.RunFinished, within)
    assert of(said.CellFinished, within)[0].result.status == "ok"
    assert answered.text == child.completion.response == events[-1].completion.response
    calls = [*of(said.ModelReplied, events), *of(said.ModelReplied, within)]
    assert events[-1].completion.usage_summary.total_calls == len(calls)


async def test_a_tool_is_called(told_by):
    def fetch_weather(city: str) -> str:
        """The weather of a city."""
        return f"{city}: sunny, 21 degrees"

    question = "What does fetch_weather('Tokyo') return?"
    events = await told_by("Some notes.", question, CALL, custom_tools={"fetch_weather": fetch_weather})
    (called,) = of(said.ToolCalled, events)
    assert (called.call.tool, called.call.args) == ("fetch_weather", ("Tokyo",))
    assert "sunny, 21 degrees" in events[-1].completion.response
