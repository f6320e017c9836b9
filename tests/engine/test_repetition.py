"""Replies that repeat themselves: answered in other words, then with a higher temperature, then the run ends early."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from breakers import BREAKERS

from rlm import NoAnswerError, ScriptedLM
from rlm_kernel.clients.openai import OpenAIAdapter
from rlm_kernel.clients.remote import RemoteLM
from rlm_kernel.parsing import parse
from rlm_kernel.prompts import LARGE, SMALL
from rlm_kernel.prompts.context_preview import describe
from rlm_kernel.trajectory import events as happened

SAME = "```repl\nprint(len(context))\n```"
WORDS = "I would look at the context now."


class Fixated(ScriptedLM):
    """Sends the same replies; notes the temperatures that it is asked with."""

    def __init__(self, replies, temperature=None):
        super().__init__(replies)
        self.asked_with = []
        self.temperature = temperature

    def warmer(self, temperature):
        self.asked_with.append(temperature)
        return self


def told(lm):
    """The message after each reply but the last one."""
    return [call.messages[-1]["content"] for call in lm.calls[1:]]


def notices(events):
    return [event.message for event in events if isinstance(event, happened.Notice)]


@pytest.mark.parametrize("profile", [LARGE, SMALL], ids=["large", "small"])
async def test_a_reply_that_repeats_itself_is_answered_in_other_words_and_the_run_ends_early(run, events, profile):
    lm = Fixated([SAME, SAME, SAME.replace("(len", "( len").replace("( ", "("), SAME, "FINAL(the best)"])
    completion = await run(lm, max_iterations=30, profile=profile)
    first, second, third, last = told(lm)
    assert "sent that" not in first
    assert "You have sent that before" in second
    assert "FINAL(" in second.rpartition("```")[2]
    assert "sent 3 times now" in third
    assert "print(context[:1000])" in third
    assert "No turns are left" in last
    assert completion.response == "the best"
    assert any("repeated itself 3 times in a row" in notice for notice in notices(events))


async def test_the_temperature_is_raised_after_the_second_repeat_and_the_log_says_it(run, events):
    lm = Fixated([SAME, SAME, SAME, "```repl\nprint(2)\n```", "FINAL(2)"])
    assert (await run(lm)).response == "2"
    assert lm.asked_with == [0.8]
    assert any("temperature of 0.8" in notice for notice in notices(events))


@pytest.mark.parametrize(("given", "raised"), [({"temperature": 0}, 0.8), ({"temperature": 0.9}, None), ({}, None)])
def test_only_a_client_that_was_given_a_lower_temperature_takes_a_higher_one(given, raised):
    lm = RemoteLM(OpenAIAdapter("some-model", "key", "http://127.0.0.1:1/v1", sampling_args={**given, "top_p": 0.5}))
    warmer = lm.warmer(0.8)
    assert (warmer and warmer.adapter.build_request([], None)["temperature"]) == raised
    assert lm.adapter.build_request([], None).get("temperature") == given.get("temperature")


async def test_code_with_a_new_output_each_time_is_no_repeat(run, events):
    count = "```repl\nn = globals().get('n', 0) + 1; print(n)\n```"
    silent = "```repl\nparts = globals().get('parts', 0) + 1; note = llm_query(f'part {parts}')\n```"
    lm = Fixated([*[count] * 6, *[silent] * 6, "FINAL(done)"])
    assert (await run(lm, others=[ScriptedLM(lambda _: "yes")])).response == "done"
    assert not any("sent" in message for message in told(lm))
    assert not notices(events)


async def test_replies_that_alternate_repeat_each_other(run):
    lm = Fixated([SAME, "```repl\nprint(1)\n```", SAME, "```repl\nprint(1)\n```", SAME, "FINAL(best)"])
    assert (await run(lm, max_iterations=30)).response == "best"


@pytest.mark.parametrize(
    "replies",
    [
        [f"I would look at part {n} of it." for n in range(5)],
        ["I would look.", "FINAL_VAR(missing)", "Let me think."],
        ["FINAL(str(missing))"],
    ],
    ids=["words", "words and names", "source"],
)
async def test_replies_without_code_that_alternate_end_the_run_early(run, events, replies):
    lm = Fixated(replies * 10)
    with suppress(NoAnswerError):
        await run(lm, max_iterations=30)
    assert len(lm.calls) <= len(replies) + 5
    assert any("repeated itself 3 times in a row" in notice for notice in notices(events))


async def test_a_silent_cell_that_changes_variables_is_no_repeat(run, events):
    setup = "```repl\nn = 0\ndef step():\n    global n\n    n += 1\n```"
    lm = Fixated([setup, *["```repl\nstep()\n```"] * 7, "FINAL_VAR(n)"])
    assert (await run(lm)).response == "7"
    assert not any("sent" in message for message in told(lm))
    assert not notices(events)


async def test_a_cell_that_polls_is_no_repeat(run, events):
    poll = "```repl\nimport itertools\nc = globals().get('c') or itertools.count()\nprint(next(c))\n```"
    assert (await run(Fixated([poll] * 6 + ["FINAL(done)"]))).response == "done"
    assert not notices(events)


async def test_each_note_about_a_repeat_differs_from_those_before(run):
    other = [f"```repl\nprint({n})\n```" for n in range(6)]
    lm = Fixated([reply for cell in other for reply in (cell, cell)] + ["FINAL(done)"])
    await run(lm, max_iterations=30, context="a line\n" * 900)
    notes = [message for message in told(lm) if "That was sent before" in message or "You have sent that" in message]
    assert len(notes) == 6
    assert len({note.partition("sent")[2] for note in notes}) == 6


async def test_a_model_without_code_for_nine_turns_is_not_told_the_same_each_time(run):
    lm = Fixated([*(f"{WORDS} ({n})" for n in range(9)), "FINAL(at last)"])
    await run(lm, max_iterations=9, context=["a", "b"])
    messages = told(lm)
    assert messages[0] == LARGE.no_code()
    assert len(set(messages)) >= 4
    assert all(a != b for a, b in pairwise(messages))


async def test_a_run_that_ends_early_without_an_answer_says_after_how_many_turns(run):
    with pytest.raises(NoAnswerError, match="in 4 turns"):
        await run(Fixated([SAME] * 9), max_iterations=30)


@pytest.mark.parametrize(
    "context", ["one text", ["a", "list"], {"a": "dict"}, "", "a: 1\nb: 2\n", {"x.py": "import os"}]
)
def test_the_cells_of_the_notes_run_on_a_context_of_any_type(context, capsys):
    facts = describe(context)
    for text in (*(LARGE.repeated(1, facts, earlier) for earlier in range(3)), LARGE.no_code_again(2, facts)):
        (code,) = parse(text).blocks
        exec(code, {"context": context})
        assert capsys.readouterr().out.strip()


def test_an_example_that_is_copied_gives_no_answer():
    assert parse(LARGE.repeated(1, describe("one text")).rpartition("\n")[2]).answer is None


async def test_a_run_survives_cells_that_break_the_kernel(run, events):
    names = ["stdout is None", "json.dumps", "builtins.len", "IOPub socket closed", "exit"]
    cells = [f"```repl\n{BREAKERS[name]}\n```" for name in names]
    lm = ScriptedLM(["```repl\nkept = 41\n```", *cells, "```repl\nFINAL(kept + len(context) - 11)\n```"])
    assert (await run(lm)).response == "42"
    messages = told(lm)
    assert all("it was put back: " in message for message in messages[1:4])
    assert all("The kernel was restarted" in message for message in messages[4:6])


async def test_a_child_survives_a_cell_that_breaks_its_kernel(run):
    breaker = f"```repl\n{BREAKERS['stdout is None']}\n```"
    lm = ScriptedLM(
        ["```repl\nFINAL(rlm_query('q'))\n```", breaker, "```repl\nprint('x'); FINAL('from the child')\n```"]
    )
    assert (await run(lm, max_depth=2)).response == "from the child"
    assert "it was put back: sys.stdout" in lm.calls[2].messages[-1]["content"]
