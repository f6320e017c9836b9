"""An answer that is an expression is the cell that evaluates it, wherever in a run it is given."""

from __future__ import annotations

import pytest

from rlm import RLM
from rlm.logger import RLMLogger
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.errors import NoAnswerError
from rlm_kernel.replay.replayer import replay
from rlm_kernel.trajectory import events as said
from rlm_kernel.types import Reply

LOOK = "```repl\nx = 5\n```"


def cells(events):
    return [event.code for event in events if isinstance(event, said.CellStarted)]


@pytest.mark.anywhere
async def test_source_looks_at_the_context(run, events):
    lm = ScriptedLM(["FINAL(len(context))"])
    assert (await run(lm, "x" * 17)).response == "17"
    assert (len(lm.calls), cells(events)) == (1, ["FINAL(len(context))"])


async def test_source_with_an_error_is_told_and_never_the_answer(run):
    lm = ScriptedLM([LOOK, "FINAL(str(y))", "FINAL(it is five)"])
    assert (await run(lm)).response == "it is five"
    assert "NameError: name 'y' is not defined" in lm.calls[2].prompt
    assert 'if it is text: FINAL("...")' in lm.calls[2].prompt


async def test_source_is_the_answer_after_the_last_turn(run, events):
    lm = ScriptedLM([LOOK, 'FINAL(f"x is {x}")'])
    assert (await run(lm, max_iterations=1)).response == "x is 5"
    assert cells(events)[1:] == ['FINAL(f"x is {x}")']


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply("FINAL(str(y))", "m"), "was evaluated as code"),
        (Reply("FINAL(It is because", "m", finish_reason="length"), "inside the answer"),
        (Reply("FINAL(It is because", "m", finish_reason="error"), "inside the answer"),
        (Reply("```repl\nprint(", "m", finish_reason="length"), "That was code"),
    ],
)
async def test_what_is_no_answer_after_the_last_turn_is_asked_once_more(run, reply, told):
    lm = ScriptedLM([LOOK, reply, "FINAL(five)"])
    assert (await run(lm, max_iterations=1)).response == "five"
    assert told in lm.calls[2].prompt


async def test_a_second_reply_without_an_answer_ends_the_run(run):
    lm = ScriptedLM([LOOK, "FINAL(str(y))", "FINAL(str(z))"])
    with pytest.raises(NoAnswerError):
        await run(lm, max_iterations=1)


async def test_the_draft_stands_in_for_an_answer_that_was_cut(run):
    lm = ScriptedLM(["```repl\nanswer['content'] = 'a draft'\n```", Reply("FINAL(It is", "m", finish_reason="length")])
    assert (await run(lm, max_iterations=1)).response == "a draft"


def test_a_replay_evaluates_the_source_again(tmp_path):
    logger = RLMLogger(str(tmp_path))
    RLM(ScriptedLM([LOOK, 'FINAL(f"x is {x}")']), logger=logger).completion("context")
    report = replay(logger.notebook_path)
    assert report.equal, str(report)
    assert report.answer == "x is 5"
