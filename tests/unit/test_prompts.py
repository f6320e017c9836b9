from __future__ import annotations

from dataclasses import replace

import pytest

from rlm_kernel.prompts import LARGE, PROFILES, SMALL
from rlm_kernel.prompts.profile import describe
from rlm_kernel.types import CellError, CellReport, CellResult

BOTH = pytest.mark.parametrize("profile", [LARGE, SMALL], ids=lambda profile: profile.name)
BRACES = 'the {set} of {} and {0!r:>{width}} %s %(x)s $y "quoted" \\n ```repl\nprint(1)\n```'
TRACEBACK = """\
---------------------------------------------------------------------------
ValueError                                Traceback (most recent call last)
Cell In[3], line 2
      1 for word in context.split():
----> 2     int(word)

ValueError: invalid literal for int() with base 10: 'ten'"""


def opening(profile, context, question="Which is the largest?", **options):
    return profile.opening(describe(context), question, context, **options)


def cell(code="x", *, printed="", value=None, error=None, variables=None):
    outputs = [{"output_type": "stream", "name": "stdout", "text": printed}] if printed else []
    if value is not None:
        outputs.append({"output_type": "execute_result", "data": {"text/plain": value}})
    status = "ok" if error is None else "error"
    return CellResult(code, status, tuple(outputs), error, CellReport(variables=variables or {}))


def told(profile, *results, **options):
    return profile.outputs(results, iteration=2, max_iterations=30, **options)


FAILED = cell(error=CellError("ValueError", "invalid literal for int() with base 10: 'ten'", TRACEBACK))


def test_the_profiles_are_known_by_their_names():
    assert dict(PROFILES) == {"large": LARGE, "small": SMALL}


# -- the opening


@BOTH
@pytest.mark.parametrize("context", ["", "one\ntwo\n", {}, {"a.py": "x = 1"}, [], [{"a": 1}], ["x"], {1: None}])
def test_a_conversation_opens_with_the_system_message_and_ends_with_the_user(profile, context):
    messages = opening(profile, context)
    assert [message["role"] for message in messages][:1] == ["system"]
    roles = [message["role"] for message in messages[1:]]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    assert all(message["content"].strip() for message in messages)


@BOTH
def test_the_last_message_holds_the_question_and_real_pieces_of_the_context(profile):
    last = opening(profile, {"zebra.txt": "The first words of it.\n" * 99}, "Who is Ada?")[-1]["content"]
    assert "Question: Who is Ada?" in last
    assert "The first words of it." in last
    assert "context['zebra.txt']" in last
    assert "dict with 1 key" in last


@BOTH
def test_braces_and_backticks_of_users_come_through_as_they_are(profile):
    messages = opening(profile, BRACES * 3, f"What is {BRACES}?", system=BRACES)
    assert messages[0]["content"] == BRACES
    assert BRACES in messages[-1]["content"]


def test_a_users_system_prompt_keeps_the_examples():
    own, usual = opening(SMALL, "text", system="Be brief."), opening(SMALL, "text")
    assert own[1:] == usual[1:]


@BOTH
@pytest.mark.parametrize("context", ["x" * 30_000_000, ["word " * 100] * 100_000, {"k" * 5_000: "v" * 5_000_000}])
def test_a_large_context_does_not_make_a_long_opening(profile, context):
    assert len(opening(profile, context)[-1]["content"]) < 4_000


def test_the_examples_leave_most_of_a_small_window_to_the_work():
    longest = max(
        sum(len(message["content"]) for message in opening(SMALL, example.context, example.question))
        for example in SMALL.examples
    )
    assert longest < 8_192 * 3 * 0.3, "three characters are about a token of code"


@BOTH
def test_a_context_without_a_question_is_the_question(profile):
    assert "Question: What is six times seven?" in opening(profile, "What is six times seven?", "")[-1]["content"]


@BOTH
def test_a_long_context_without_a_question_shows_where_the_question_may_stand(profile):
    last = opening(profile, "Read this." + "\n" * 5_000 + "How many are there?", "")[-1]["content"]
    assert "the question or task stands in `context`" in last.lower()
    assert "Read this." in last
    assert "How many are there?" in last


def test_the_small_profile_shows_lines_with_words_of_the_question():
    context = "nothing\n" * 5_000 + "the pump of Elvedon leaks\n"
    assert "the pump of Elvedon leaks" in opening(SMALL, context, "What leaks in Elvedon?")[-1]["content"]


def test_the_large_profile_is_told_the_window_of_sub_calls():
    assert "32,768 tokens" in opening(LARGE, "x", sub_window=32_768)[-1]["content"]
    assert "unknown" in opening(LARGE, "x")[-1]["content"]


def test_the_large_profile_names_everything_in_the_notebook():
    names = "context llm_query llm_query_batched rlm_query rlm_query_batched allm_query allm_query_batched"
    names += " arlm_query arlm_query_batched FINAL FINAL_VAR answer SHOW_VARS"
    assert [name for name in names.split() if name not in LARGE.system] == []


# -- after a turn


@BOTH
def test_the_output_of_a_cell_goes_back_to_the_model(profile):
    assert told(profile, cell(printed="forty\n", value="42")).startswith("Output:\nforty\n42")


@BOTH
def test_the_outputs_of_several_cells_are_numbered(profile):
    text = told(profile, cell(value="1"), cell(value="2"))
    assert "Output of block 1:\n1" in text
    assert "Output of block 2:\n2" in text


@BOTH
def test_a_long_output_keeps_its_head_and_tail_within_the_room(profile):
    text = told(profile, cell(printed="begin" + "x" * 100_000 + "end"))
    assert "begin" in text
    assert "end" in text
    assert len(text) < profile.output_characters + 500


def test_several_long_outputs_share_the_room():
    text = told(SMALL, *[cell(printed="x" * 100_000)] * 5)
    assert len(text) < SMALL.output_characters * 1.5


@BOTH
def test_notes_are_part_of_the_message(profile):
    assert "A note with {braces}." in told(profile, cell(value="1"), notes=["A note with {braces}."])


@BOTH
def test_an_error_keeps_its_name_its_message_and_the_line_that_raised(profile):
    text = told(profile, FAILED)
    assert "ValueError: invalid literal for int() with base 10: 'ten'" in text
    assert "int(word)" in text


def test_the_large_profile_reads_turns_and_variables():
    text = told(LARGE, cell(value="1", variables={"rows": "list", "n": "int"}))
    assert "rows (list), n (int)" in text
    assert "Turn 2 of 30" in text


def test_the_small_profile_is_helped_after_an_error_with_a_hint_and_the_data():
    text = told(SMALL, FAILED, facts=describe("ten\neleven\n"))
    assert "Cut the number out with re.search" in text
    assert "ten\neleven" in text


def test_the_small_profile_asks_for_corrected_code_after_an_error_it_has_no_hint_for():
    failed = cell(error=CellError("ZooError", "the lion is out", "Traceback"))
    assert "Write corrected code." in told(SMALL, failed)


def test_the_small_profile_keeps_what_a_failing_cell_printed():
    printed = {"output_type": "stream", "name": "stdout", "text": "before it broke\n"}
    raised = {"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []}
    assert "before it broke" in told(SMALL, replace(FAILED, outputs=(printed, raised)))


def test_the_small_profile_says_that_a_search_found_nothing():
    text = told(SMALL, cell("for line in context.splitlines():\n    if 'x' in line:\n        print(line)"))
    assert "nothing matched" in text


@BOTH
def test_a_cell_that_was_ended_is_told_so(profile):
    assert "took too long" in told(profile, CellResult("while True: pass", "timeout", seconds=30.0))


# -- the other messages


@BOTH
def test_every_other_message_says_what_to_do_next(profile):
    for text in (profile.no_code(), profile.look_first()):
        assert "```repl" in text
    assert str(profile.reply_tokens) in profile.cut()
    assert "not taken" in profile.guess_ignored()
    assert "`total`" in profile.no_variable("total")
    assert profile.last_chance("Why {?}").startswith("No turns are left")
    assert "Why {?}" in profile.last_chance("Why {?}")
    assert "FINAL(" in profile.last_chance()


def test_restored_names_say_where_the_value_is_kept():
    text = LARGE.restored({"context": "my_context", "llm_query": None})
    assert "`context`" in text
    assert "`my_context`" in text
    assert "`llm_query`" in text


def test_a_restart_says_what_is_lost_and_what_is_still_there():
    assert "All variables of yours are gone" in LARGE.restarted("it died")
    text = LARGE.restarted("it died", kept=["rows"], lost=["model"])
    assert "because it died" in text
    assert "Still there: `rows`" in text
    assert "Lost: `model`" in text


def test_the_limit_of_a_reply_is_the_documented_one():
    assert (LARGE.reply_tokens, LARGE.sub_reply_tokens) == (16_384, 16_384)
