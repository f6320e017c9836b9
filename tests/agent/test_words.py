"""The words of an answer are passed on exactly when nothing can reject them any more, and none is taken back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlm_kernel.engine.spoken_answer import SpokenAnswer, parse_spoken
from rlm_kernel.errors import AnswerCutError
from rlm_kernel.parsing import TextAnswer


def pieces(*texts):
    reader = SpokenAnswer()
    return [reader.feed(text) for text in texts]


@pytest.mark.parametrize(
    ("texts", "passed_on"),
    [
        (("FINAL(", "Hello", " to you", ", Alex.", ")"), ["", "", "Hello to you", ", Alex.", ""]),
        (
            ("I think.\nFI", "NAL(It is", " so (or not", ") now", ") and more"),
            ["", "It is", " so (or not", ") now", ""],
        ),
        (("FINAL(one  ", " two  ", ")"), ["", "one   two", ""]),
        (("FINAL(name", ")"), ["", ""]),
        (("FINAL(Yes, I", " do)"), ["Yes, I", " do"]),
        (('FINAL("quoted ', 'text")'), ["", ""]),
        (("FINAL(f'quoted ", "text')"), ["", ""]),
        (("FINAL_VAR(na", "me)"), ["", ""]),
        (("```repl\nFINAL(in code", " it is)\n```\nFINAL(a guess of mine)"), ["", ""]),
        (("```text\nno code\n```\nFINAL(It is", " so)"), ["It is", " so"]),
        (
            ("FINAL(Write this:\n```python\nx = 1\n", "```\nand run)"),
            ["Write this:\n```python\nx = 1", "\n```\nand run"],
        ),
        (("<think>FINAL(no, not", " yet)</thi", "nk>FINAL(Now it", " is)"), ["", "", "Now it", " is"]),
        (("so FINAL(not at the start", ")\nFINAL(here it is)"), ["", "here it is"]),
        (("FINAL()",), [""]),
        (("**FINAL(Bold it", " is)**"), ["Bold it", " is"]),
    ],
)
def test_words_are_passed_on(texts, passed_on):
    assert pieces(*texts) == passed_on


PARTS = [
    *["FINAL(", "FINAL_VAR(", "a b", "c", " ", "\n", "(", ")", '"', "'", "`", "x = 1"],
    *["```repl\n", "```\n", "```text\n", "<think>", "</think>"],
]
REPLIES = st.lists(st.sampled_from(PARTS), max_size=14).map("".join)


@given(REPLIES, st.lists(st.integers(0, 40), max_size=6))
@example("FINAL(a b\n```repl\nx = 1\n```)", [7, 9])
def test_any_cut_of_a_reply_gives_the_same_words(reply, cuts):
    ends = sorted({0, len(reply), *(cut for cut in cuts if cut < len(reply))})
    parts = [reply[start:end] for start, end in pairwise(ends)]
    assert "".join(pieces(*parts)) == "".join(pieces(*reply)) == "".join(pieces(reply))


@given(REPLIES)
def test_the_words_are_the_beginning_of_the_answer(reply):
    passed_on = "".join(pieces(*reply))
    if passed_on and "think" not in reply:
        assert parse_spoken(reply, finished=True).answer == TextAnswer(passed_on)


def test_an_answer_that_the_length_limit_cut_is_an_error_with_what_there_is():
    with pytest.raises(AnswerCutError) as raised:
        parse_spoken("FINAL(It goes on and", finished=False)
    assert raised.value.partial_answer == "It goes on and"
    assert parse_spoken("FINAL(It goes on and", finished=True).answer == TextAnswer("It goes on and")
