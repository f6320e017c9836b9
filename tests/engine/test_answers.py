"""The answer table, one behaviour a test, on a real kernel."""

from __future__ import annotations

import pytest

from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.errors import NoAnswerError
from rlm_kernel.types import Reply

LOOK = "```repl\nlen(context)\n```"


def told(lm, call):
    """What the model was told before its n-th reply."""
    return lm.calls[call].prompt


@pytest.mark.anywhere
@pytest.mark.parametrize(
    "reply",
    [
        "```repl\nFINAL(len(context))\n```",
        "```python\nn = len(context)\nFINAL_VAR('n')\n```",
        "```repl\nanswer['content'] = str(len(context))\nanswer['ready'] = True\n```",
        "```repl\nanswer = {'content': len(context), 'ready': True}\n```",
        "```repl\nn = len(context)\n```\nFINAL_VAR(n)",
        "```repl\nn = len(context)\n```\nFINAL(n)",
        "First this:\n```repl\nn = len(context)\n```\nthen that:\n```repl\nFINAL(n)\n```",
    ],
)
async def test_an_answer_in_the_first_reply_with_code(run, reply):
    assert (await run(ScriptedLM([reply]), "x" * 12)).response == "12"


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("FINAL(It is 7 (seven).)", "It is 7 (seven)."),
        ('FINAL("quoted :) text")', "quoted :) text"),
        ("So:\n  FINAL(7)\nDone.", "7"),
        ("<think>FINAL(wrong)</think>\nFINAL(right)", "right"),
        ("FINAL(found)", "variable"),
        ("FINAL(unknown_name)", "unknown_name"),
        ("FINAL_VAR(found)", "variable"),
        ('FINAL_VAR("found")', "variable"),
    ],
)
async def test_an_answer_in_words_after_code_ran(run, reply, answer):
    lm = ScriptedLM(["```repl\nfound = 'variable'\n```", reply])
    assert (await run(lm)).response == answer


async def test_the_first_block_that_raises_stops_the_rest(run, events):
    lm = ScriptedLM(["```repl\n1/0\n```\n```repl\nprint('not run')\n```", "FINAL(x)"])
    await run(lm)
    assert "ZeroDivisionError" in told(lm, 1)
    assert "not run" not in told(lm, 1)


async def test_an_answer_of_a_cell_that_raised_is_void(run):
    lm = ScriptedLM(["```repl\nFINAL('void')\nanswer['ready'] = True\n1/0\n```", "FINAL(real)"])
    assert (await run(lm)).response == "real"


async def test_a_variable_is_not_taken_when_the_code_beside_it_raised(run):
    lm = ScriptedLM(["```repl\nn = 1\n1/0\n```\nFINAL_VAR(n)", "FINAL(real)"])
    assert (await run(lm)).response == "real"


async def test_a_literal_beside_code_is_a_guess(run):
    lm = ScriptedLM([f"{LOOK}\nFINAL(41)", "FINAL(12)"])
    assert (await run(lm)).response == "12"
    assert "before the code's output was known" in told(lm, 1)


async def test_a_missing_variable_is_told(run):
    lm = ScriptedLM([LOOK, "FINAL_VAR(nothing)", "FINAL(12)"])
    assert (await run(lm)).response == "12"
    assert "no variable `nothing`" in told(lm, 2)


async def test_an_answer_before_any_look_is_challenged_once(run):
    lm = ScriptedLM(["FINAL(guess)", "FINAL(still a guess)"])
    assert (await run(lm)).response == "still a guess"
    assert "Look at `context`" in told(lm, 1)


async def test_a_reply_that_was_cut_inside_a_fence_is_not_run(run):
    lm = ScriptedLM(
        [Reply("```repl\nFINAL('cut')\nx = 'unfin", "m", finish_reason="length"), f"{LOOK}\nFINAL_VAR(y)", "FINAL(z)"]
    )
    assert (await run(lm)).response == "z"
    assert "cut" in told(lm, 1)


async def test_a_reply_without_code_or_answer_is_told_so(run):
    lm = ScriptedLM(["I will think about it.", "", LOOK, "FINAL(12)"])
    assert (await run(lm)).response == "12"
    assert "neither code nor an answer" in told(lm, 1)
    assert all(message["content"] for call in lm.calls for message in call.messages)


@pytest.mark.anywhere
async def test_overwritten_names_are_told(run):
    lm = ScriptedLM(["```repl\ncontext = 5\n```", "FINAL(x)"])
    await run(lm)
    assert "`context` belongs to the notebook" in told(lm, 1)
    assert "`my_context`" in told(lm, 1)


async def test_long_output_goes_back_head_and_tail_with_the_traceback(run):
    lm = ScriptedLM(["```repl\nprint('start', 'x' * 10**6, 'end')\nundefined\n```", "FINAL(x)"])
    await run(lm)
    assert len(told(lm, 1)) < 30_000
    assert all(piece in told(lm, 1) for piece in ("start", "end", "left out", "NameError: name 'undefined'"))


async def test_the_conversation_alternates_and_ends_with_the_user(run):
    lm = ScriptedLM([LOOK, "no code", "FINAL(x)"])
    await run(lm)
    for call in lm.calls:
        roles = [message["role"] for message in call.messages]
        assert roles == ["system", *["user", "assistant"] * (len(roles) // 2 - 1), "user"]


@pytest.mark.parametrize(
    ("last", "answer"),
    [
        ("FINAL(at last)", "at last"),
        ("FINAL_VAR(found)", "variable"),
        ("FINAL_VAR(no)", "no"),
        ("FINAL_VAR(empty)", ""),
        ("plain words", "plain words"),
        ("```\nThe name is Ines.\n```", "The name is Ines."),
    ],
)
async def test_after_the_last_turn_the_answer_is_asked_for_by_the_user(run, last, answer):
    lm = ScriptedLM(["```repl\nfound, empty = 'variable', ''\n```", LOOK, last])
    assert (await run(lm, max_iterations=2)).response == answer
    assert lm.calls[-1].messages[-1]["role"] == "user"
    assert "No turns are left" in told(lm, 2)
    assert len(lm.calls) == 3


CODE = "```repl\nFINAL(len(context))\n```"


async def test_code_as_the_last_word_is_no_answer_and_the_model_is_asked_once_more(run):
    lm = ScriptedLM([LOOK, CODE, "FINAL(in words)"])
    assert (await run(lm, max_iterations=1)).response == "in words"
    assert "That was code, and it was not run." in told(lm, 2)
    assert told(lm, 2).endswith(told(lm, 1)[-40:])


@pytest.mark.parametrize("empty", ["", " \n", "<think>Where was I?"])
async def test_an_empty_last_word_is_no_answer_and_the_model_is_asked_once_more(run, empty):
    lm = ScriptedLM([LOOK, empty, "FINAL(in words)"])
    assert (await run(lm, max_iterations=1)).response == "in words"
    assert "Your reply was empty." in told(lm, 2)


@pytest.mark.parametrize("last", [CODE, ""])
async def test_a_draft_stands_in_the_place_of_no_answer_and_nothing_more_is_asked(run, last):
    lm = ScriptedLM(["```repl\nanswer['content'] = 'draft'\n```", last])
    assert (await run(lm, max_iterations=1)).response == "draft"
    assert len(lm.calls) == 2


async def test_a_model_that_has_but_code_to_say_gave_no_answer(run, events):
    with pytest.raises(NoAnswerError, match="scripted gave no answer in 1 turn, .* raise max_iterations") as raised:
        await run(ScriptedLM([LOOK, CODE, f"I look again.\n{CODE}"]), max_iterations=1)
    assert raised.value.partial_answer == "I look again."
    assert raised.value.reply == f"I look again.\n{CODE}"
    assert raised.value.usage.total_calls == 3
    assert type(events[-1]).__name__ == "RunFailed"


async def test_every_reply_has_a_length_limit(run):
    lm = ScriptedLM(["```repl\nllm_query('sub')\n```", "answer of the sub-call", "FINAL(x)"])
    await run(lm)
    assert [call.max_tokens is not None for call in lm.calls] == [True, True, True]


async def test_at_the_greatest_depth_it_is_one_plain_completion(run, events):
    lm = ScriptedLM(["plain answer"])
    completion = await run(lm, {"a": 1}, "what?", depth=1, max_depth=1)
    assert completion.response == "plain answer"
    assert (completion.root_model, completion.usage_summary.total_calls) == ("scripted", 1)
    assert "what?" in told(lm, 0)
    assert '{"a": 1}' in told(lm, 0)
    assert "CellStarted" not in {type(event).__name__ for event in events}


async def test_a_users_system_prompt_is_taken_verbatim(run):
    lm = ScriptedLM(["```repl\nFINAL(1)\n```"])
    await run(lm, system_prompt="Braces {are} safe: {0} %s")
    assert lm.calls[0].messages[0] == {"role": "system", "content": "Braces {are} safe: {0} %s"}


@pytest.mark.parametrize("empty", ["FINAL()", 'FINAL("")', "```repl\nanswer['ready'] = True\n```"])
async def test_an_empty_answer_is_taken_when_it_is_given_again(run, empty):
    lm = ScriptedLM([LOOK, empty, "```repl\nprint(1)\n```", empty])
    assert (await run(lm)).response == ""
    assert "The answer is empty" in lm.calls[2].messages[-1]["content"]


async def test_a_final_in_other_letters_is_never_the_last_word_itself(run):
    assert (await run(ScriptedLM([LOOK, "So: Final(262)"]), max_iterations=1)).response == "262"
