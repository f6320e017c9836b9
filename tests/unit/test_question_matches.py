from __future__ import annotations

from rlm_kernel.prompts.question_matches import question_lines

LOG = "\n".join(f"{n:04d} INFO request {n} served" for n in range(3_000))


def test_the_line_with_the_rarest_words_is_found():
    text = LOG.replace("1500 INFO request 1500 served", "1500 WARN the pump of Elvedon is broken")
    assert question_lines(text, "Which pump is broken in Elvedon?", 3) == ["1500 WARN the pump of Elvedon is broken"]


def test_upper_and_lower_case_are_both_found():
    assert question_lines("x\nThe PUMP is here\ny", "Where is the pump?", 3) == ["The PUMP is here"]


def test_words_that_stand_in_every_line_are_no_clue():
    assert question_lines(LOG, "How many requests were served?", 3) == []


def test_a_name_is_a_clue_even_when_it_is_common():
    lines = question_lines("class Pump_V2:\n" + "Pump_V2()\n" * 100, "How is Pump_V2 defined?", 2)
    assert lines == ["class Pump_V2:", "Pump_V2()"]


def test_a_line_in_which_several_words_meet_comes_first():
    text = "the pump\n" * 3 + "the harbour\n" * 3 + "the pump in the harbour\n"
    assert question_lines(text, "Where is the pump of the harbour?", 1) == ["the pump in the harbour"]


def test_a_line_of_a_dict_says_where_it_stands():
    context = {"a.txt": "nothing\n", "b.txt": "first\nthe pump leaks\n"}
    assert question_lines(context, "What leaks?", 3) == ["context['b.txt']: the pump leaks"]


def test_a_key_of_a_dict_is_found():
    context = {f"berth-{n:04d}": {"owner": f"o{n}"} for n in range(5_000)}
    assert question_lines(context, "Who owns berth-4711?", 3) == ["context['berth-4711']: {'owner': 'o4711'}"]


def test_a_long_line_is_cut_around_the_word():
    line = question_lines("x" * 50_000 + " Elvedon " + "y" * 50_000, "Where is Elvedon?", 1)[0]
    assert "Elvedon" in line
    assert len(line) <= 200


def test_a_question_of_common_words_has_no_clues():
    assert question_lines("which is the largest\n", "Which is the largest?", 3) == []


def test_a_question_with_pattern_characters_is_taken_literally():
    assert question_lines("cost (in $) is 5\n", "What is the cost (in $)? [x*", 3) == ["cost (in $) is 5"]


def test_an_empty_context_and_an_empty_question_have_no_clues():
    assert (
        question_lines("", "What?", 3) == question_lines({}, "Where is Elvedon?", 3) == question_lines(LOG, "", 3) == []
    )


def test_the_search_ends_after_its_budget_of_characters(monkeypatch):
    text = "a" * 5_000 + "\nElvedon\n"
    assert question_lines(text, "Elvedon?", 1) == ["Elvedon"]
    monkeypatch.setattr("rlm_kernel.prompts.question_matches._BUDGET", 1_000)
    assert question_lines(text, "Elvedon?", 1) == []


def test_a_question_that_counts_is_not_told_where_the_lines_stand():
    context = {"a.txt": "nothing\n", "b.txt": "first\nthe pump leaks\n"}
    assert question_lines(context, "How many pumps of leaks are there?", 3) == ["the pump leaks"]
