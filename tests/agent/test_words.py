"""The words of an answer are passed on exactly when nothing can reject them any more, and none is taken back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlm_kernel.engine.spoken_answer import SpokenAnswer, parse_spoken
from rlm_kernel.errors import AnswerCutError
from rlm_kernel.parsing import TextAnswer, parse, without_thinking


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
        (("FINAL(Yes, I", " do)"), ["", "Yes, I do"]),
        (("FINAL(str(x", "))"), ["", ""]),
        (('FINAL(r["a', '"])'), ["", ""]),
        (("FINAL(1) one thing\n2)", " two things)"), ["", ""]),
        (("FINAL(It works :)", " at last)"), ["It works :", ""]),
        (("FINAL(in [0, 1)", " of the range)"), ["", ""]),
        (("FINAL(all of (0, 1] is", " here) and more"), ["all of (0, 1] is", " here"]),
        (("```\nx = len(context)\n", "```\nFINAL(It is so)"), ["", ""]),
        (("[THINK]\nFINAL(not so", ")\n[/THINK]\nFINAL(It is", " so)"), ["", "It is", " so"]),
        (("Hm <thought>\nFINAL(not so", ")\n</thought>\nFINAL(It is", " so)"), ["", "It is", " so"]),
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
    *["FINAL(", "FINAL_VAR(", "a b", "c", " ", "\n", "(", ")", '"', "'", "`", "x = 1", "[", "]", ", ", ":", ";-"],
    *["```repl\n", "```\n", "```text\n", "```python ", "> ", "    ", "1", "2) d", "str(x)", 'f"{x}"', "**", "is "],
    *["<think>", "</think>", "[THINK]", "[/THINK]", "<thought>", "</Thought>", "<|channel|>final<|message|>", "<code>"],
]
REPLIES = st.lists(st.sampled_from(PARTS), max_size=14).map("".join) | st.lists(
    st.sampled_from(PARTS), max_size=10
).map(lambda parts: "FINAL(a b" + "".join(parts))
MORE = settings.default.max_examples * 3


@given(REPLIES, st.lists(st.integers(0, 40), max_size=6))
@settings(max_examples=MORE)
@example("FINAL(a b\n```repl\nx = 1\n```)", [7, 9])
def test_any_cut_of_a_reply_gives_the_same_words(reply, cuts):
    ends = sorted({0, len(reply), *(cut for cut in cuts if cut < len(reply))})
    parts = [reply[start:end] for start, end in pairwise(ends)]
    assert "".join(pieces(*parts)) == "".join(pieces(*reply)) == "".join(pieces(reply))


@given(REPLIES)
@settings(max_examples=MORE)
def test_the_words_are_the_beginning_of_the_answer(reply):
    passed_on = "".join(pieces(*reply))
    if passed_on and without_thinking(reply) == reply:  # a closing tag after the answer takes it back
        answer = parse_spoken(reply, finished=True).answer
        assert answer is not None
        assert answer.text.startswith(passed_on)


@given(REPLIES)
@settings(max_examples=MORE)
def test_an_answer_of_which_no_word_was_passed_on_is_read_as_in_a_completion(reply):
    if not "".join(pieces(reply)):
        assert parse_spoken(reply, finished=True) == parse(reply)


def test_an_answer_that_the_length_limit_cut_is_an_error_with_what_there_is():
    with pytest.raises(AnswerCutError) as raised:
        parse_spoken("FINAL(It goes on and", finished=False)
    assert raised.value.partial_answer == "It goes on and"
    assert parse_spoken("FINAL(It goes on and", finished=True).answer == TextAnswer("It goes on and")
