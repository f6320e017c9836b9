"""Runs of models that were trained to be RLMs: what they read, what is on record, and what becomes of their replies."""

import pytest

from rlm import RLM
from rlm.logger import RLMLogger
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.prompts import trained_profile
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.trajectory.training_data import examples_of

LOOK, FAIL, WORDS = "```repl\nprint(len(context))\nn = 1\n```", "```repl\n1 / 0\n```\n```repl\nprint(n)\n```", "no code"
READY = '```repl\nanswer["content"] = "7"; answer["ready"] = True\n```'
BOTH = pytest.mark.parametrize("prompts", ["rlm-qwen3-8b", "rlm-qwen3-30b-a3b"])


def run(replies, prompts, **options):
    lm = ScriptedLM(replies)
    return RLM(lm, prompts=prompts, **options).completion("some text", "How many?").response, [
        call.messages for call in lm.calls
    ]


def roles(messages):
    return " ".join(message["role"][0] for message in messages)


def test_the_8b_reads_facts_of_the_assistant_a_message_a_block_and_one_that_does_not_stay():
    answer, calls = run([LOOK, FAIL, WORDS, "FINAL(seven)"], "rlm-qwen3-8b")
    assert answer == "seven"
    assert [roles(call) for call in calls] == ["s a u", "s a a u u", "s a a u a u u u", "s a a u a u u a u"]
    assert all("How many?" in call[-1]["content"] for call in calls)
    assert sum("How many?" in message["content"] for message in calls[-1]) == 1
    assert "ZeroDivisionError" in calls[2][5]["content"]
    assert "\n1\n" in calls[2][6]["content"], "the block after one that failed has run"


def test_the_30b_reads_several_user_messages_in_a_row_which_stay():
    answer, calls = run([LOOK, FAIL, WORDS, "FINAL(6)", READY], "rlm-qwen3-30b-a3b")
    assert answer == "7", "an answer in words is none"
    assert [roles(call) for call in calls[:4]] == ["s u u", "s u u a u u", "s u u a u u a u u", "s u u a u u a u u a u"]
    assert calls[-1][: len(calls[0])] == calls[0]
    assert calls[3][-1]["content"] == "Turn 4/30:"


@BOTH
def test_without_turns_the_assistant_asks_for_the_answer_and_its_words_are_taken(prompts):
    answer, calls = run([LOOK, LOOK, "It is 9."], prompts, max_iterations=2)
    assert answer == "It is 9."
    assert calls[-1][-1]["role"] == "assistant"


@BOTH
def test_a_model_that_repeats_itself_is_not_told(prompts):
    _, calls = run([WORDS] * 6 + ["FINAL(x)" if prompts == "rlm-qwen3-8b" else READY], prompts)
    assert len(calls) == 7


def test_the_record_has_each_prompt_and_no_message_that_did_not_stay_in_the_history(tmp_path):
    _, calls = run([LOOK, FAIL, "FINAL(8)"], "rlm-qwen3-8b", logger=RLMLogger(str(tmp_path)))
    (log,) = (path for path in tmp_path.glob("*.jsonl") if "events" not in path.name)
    history = read_log(log).trajectory.conversation()
    assert roles(history) == "s a a u a u u a"
    prompts = [example.prompt for example in examples_of(read_log(log).trajectory)]
    assert prompts == [[dict(message) for message in call] for call in calls]


def test_the_name_of_the_model_chooses_the_conversation():
    lm = ScriptedLM([LOOK, "FINAL(1)"], model="mit-oasys/rlm-qwen3-8b-v0.1")
    RLM(lm).completion("some text", "How many?")
    assert lm.calls[0].messages[1]["role"] == "assistant"


def test_a_schema_has_a_message_of_its_own():
    lm = ScriptedLM([LOOK, '```repl\nanswer["content"] = 7; answer["ready"] = True\n```'])
    rlm = RLM(lm, prompts=trained_profile("rlm-qwen3-30b-a3b"))
    completion = rlm.completion("x", "How many?", response_schema={"type": "integer"})
    assert completion.parsed == 7
    assert roles(lm.calls[0].messages) == "s u u u"
