"""The table of replies, in every place where a reply is read."""

from __future__ import annotations

import pytest
import reply_table
from reply_table import ANSWER_CUT, CUT, GUESS, NOTHING, ONLY_THINKING, ROWS, SOURCE, Row

from rlm_kernel.engine.spoken_answer import SpokenAnswer, parse_spoken
from rlm_kernel.errors import AnswerCutError
from rlm_kernel.parsing import parse, without_thinking

NAMES = {"total": "42", "y": "6"}


def check(row, parsed):
    assert parsed.cut == (row.told == CUT)
    assert parsed.blocks == row.runs
    assert parsed.answer_cut == (row.told == ANSWER_CUT)
    if row.by_code or row.told in (CUT, ANSWER_CUT, NOTHING, ONLY_THINKING):
        assert parsed.answer is None
        return
    if row.answer is not None or row.told is not None:
        assert parsed.answer is not None
    if row.answer is not None and row.told is None:
        assert row.answer in (parsed.answer.text, NAMES.get(parsed.answer.name)) or parsed.answer.source is not None
    if row.answer is not None and row not in SOURCE:
        assert parsed.answer.source is None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.says)
def test_a_reply_is_parsed_as_the_table_says(row):
    check(row, parse(row.reply, finished=row.finished))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.says)
def test_a_reply_of_a_conversation_is_parsed_as_the_table_says(row):
    if row.told == GUESS and row.reply.startswith("FINAL"):
        return  # it is the answer in a conversation
    try:
        parsed = parse_spoken(row.reply, finished=row.finished)
    except AnswerCutError:
        assert row.told == ANSWER_CUT
    else:
        check(row, parsed)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.says)
def test_the_words_that_are_passed_on_are_the_answer_of_the_table(row):
    reader = SpokenAnswer()
    passed_on = "".join(map(reader.feed, row.reply))
    if row.told is None:
        assert (row.answer or "").startswith(passed_on)
    elif row.told != ANSWER_CUT and not passed_on:
        assert not reader.begun


ASKED_FOR = ("reflection", "scratchpad")
"""Tags that a user may have asked for."""

PLAIN = [row for row in reply_table.THINKING if not row.reply.lstrip("<").startswith(ASKED_FOR)]


@pytest.mark.parametrize("row", PLAIN, ids=lambda row: row.says)
def test_a_plain_answer_holds_no_thinking(row):
    words = without_thinking(row.reply)
    assert "FINAL(no)" not in words
    assert all(code in words for code in row.runs)
    if row.answer is not None:
        assert words.rstrip().endswith((f"FINAL({row.answer})", "<|return|>"))


@pytest.mark.parametrize("row", reply_table.ELEMENTS, ids=lambda row: row.says)
def test_a_plain_answer_keeps_the_elements_that_a_user_may_have_asked_for(row):
    assert without_thinking(row.reply) == row.reply


def test_a_plain_answer_keeps_the_tags_that_were_asked_for():
    answer = "<analysis>\nlong\n</analysis>\n<score>5</score>"
    assert without_thinking(answer) == answer


def test_the_page_of_the_documentation_holds_the_table():
    written = reply_table.PAGE.read_text("utf-8")
    assert written == reply_table.page(reply_table.introduction()), "run python tests/reply_table.py"


def test_the_rows_differ():
    assert len({row.reply for row in ROWS if isinstance(row, Row)}) == len(ROWS)
