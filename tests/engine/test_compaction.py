"""A conversation is summarised before it outgrows the window; nothing the model read is lost to it."""

from __future__ import annotations

import pytest

from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.errors import ContextOverflowError
from rlm_kernel.trajectory.events import Compacted
from rlm_kernel.types import Reply, Usage

WINDOW = 2_000


def words(messages):
    return sum(len(message["content"].split()) for message in messages)


class Windowed:
    """A model with a window measured in words, which refuses what is longer, as a provider does."""

    def __init__(self, turns, refuses=False):
        self.turns, self.refuses, self.summaries, self.seen = turns, refuses, 0, []

    def __call__(self, messages):
        size = words(messages)
        self.seen.append(size)
        if self.refuses and size > WINDOW:
            return ContextOverflowError("too long", backend="b", model="m", status=400)
        if "outgrow your window" in messages[-1]["content"]:
            self.summaries += 1
            return Reply(f"summary {self.summaries}: n counts the turns", "m", Usage(size, 10))
        if "No turns are left" in messages[-1]["content"]:
            return Reply("12 turns were counted", "m", Usage(size, 5))
        self.turns -= 1
        if self.turns < 0:
            return Reply("```repl\nFINAL([n, len(history), history[-1]['role']])\n```", "m", Usage(size, 5))
        code = "n = globals().get('n', 0) + 1\nprint(n, 'word ' * 140)"
        return Reply(f"```repl\n{code}\n```", "m", Usage(size, 20))


async def test_hundreds_of_turns_stay_inside_the_window(run, events):
    script = Windowed(turns=200)
    lm = ScriptedLM(script, context_window=WINDOW)
    completion = await run(lm, max_iterations=300, compaction=0.85)
    n, length, role = eval(completion.response)
    assert (n, role) == (200, "user")
    assert length > 300
    assert script.summaries > 10
    assert max(script.seen) < WINDOW
    assert len([e for e in events if isinstance(e, Compacted)]) == script.summaries
    opening = lm.calls[0].messages
    assert all(call.messages[: len(opening)] == opening for call in lm.calls[:-1])


async def test_an_overflow_the_provider_reports_is_summarised_once_and_asked_again(run):
    script = Windowed(turns=20, refuses=True)
    lm = ScriptedLM(script)  # the window is not known
    assert (await run(lm, compaction=0.85)).response.startswith("[20,")
    assert script.summaries >= 1


async def test_without_compaction_an_overflow_ends_the_run(run):
    with pytest.raises(ContextOverflowError):
        await run(ScriptedLM(Windowed(turns=20, refuses=True)))


async def test_the_summary_and_the_users_words_alternate(run):
    lm = ScriptedLM(Windowed(turns=30), context_window=WINDOW)
    await run(lm, max_iterations=60, compaction=0.85)
    for call in lm.calls:
        roles = [message["role"] for message in call.messages]
        assert roles == ["system", *["user", "assistant"] * (len(roles) // 2 - 1), "user"]


async def test_the_request_for_the_last_word_survives_a_summary(run):
    script = Windowed(turns=99)
    lm = ScriptedLM(script, context_window=WINDOW)
    completion = await run(lm, max_iterations=12, compaction=0.3)
    assert completion.response == "12 turns were counted"
    assert "No turns are left" in lm.calls[-1].prompt
    assert "before your summary" in lm.calls[-1].prompt
