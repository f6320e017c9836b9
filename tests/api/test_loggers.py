"""Loggers of users: a subclass of `RLMLogger` with a `log` of its own, or any object with one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlm import RLM, ScriptedLM
from rlm.core.types import REPLResult, RLMIteration, RLMMetadata
from rlm.logger import RLMLogger

pytestmark = pytest.mark.no_engine

TURNS = ["```repl\nx = llm_query('what?')\nprint(x)\n```", "```repl\nFINAL(x)\n```"]


class Turns:
    """A logger that is no `RLMLogger`."""

    def __init__(self):
        self.taken = []

    def log(self, iteration):
        self.taken.append(iteration)


class Mine(RLMLogger):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.counts = []

    def log(self, iteration):
        super().log(iteration)
        self.counts.append(self.iteration_count)


def model(replies=TURNS):
    return ScriptedLM(replies)


def sub():
    return ScriptedLM(lambda _: "that", model="sub")


def test_a_logger_of_turns_receives_each_with_its_blocks_and_calls():
    logger = Turns()
    result = RLM(model(), other_backends=[sub()], logger=logger).completion("the context", "the question")
    first, last = logger.taken
    assert isinstance(first, RLMIteration)
    assert isinstance(first.code_blocks[0].result, REPLResult)
    assert (first.response, first.code_blocks[0].result.stdout) == (TURNS[0], "that\n")
    call = first.code_blocks[0].result.rlm_calls[0]
    assert (call.root_model, call.prompt, call.response, call.error) == ("sub", "what?", "that", None)
    assert (first.final_answer, last.final_answer) == (None, "that")
    assert last.iteration_time > 0
    assert result.metadata["iterations"][1]["final_answer"] == "that"
    assert json.loads(json.dumps(last.to_dict()))["code_blocks"][0]["code"] == "FINAL(x)"


def test_the_prompt_of_a_turn_is_the_whole_conversation():
    lm, logger = model(), Turns()
    RLM(lm, other_backends=[sub()], logger=logger).completion("the context")
    assert [turn.prompt for turn in logger.taken] == [[dict(m) for m in call.messages] for call in lm.calls]


def test_a_subclass_logs_and_its_files_are_written(tmp_path):
    logger = Mine(tmp_path)
    rlm = RLM(ScriptedLM(TURNS * 2), other_backends=[sub()], logger=logger)
    for _ in range(2):
        rlm.completion("the context")
    assert logger.counts == [1, 2, 1, 2]
    assert logger.iteration_count == 2
    assert Path(logger.log_file_path).exists()
    assert len(logger.get_trajectory()["iterations"]) == 2


def test_what_log_raises_ends_the_run():
    class StopNowError(Exception):
        pass

    class Stopper(Turns):
        def log(self, iteration):
            super().log(iteration)
            raise StopNowError("enough")

    lm, logger = model(), Stopper()
    with pytest.raises(StopNowError, match="enough"):
        RLM(lm, other_backends=[sub()], logger=logger).completion("the context")
    assert len(logger.taken) == 1
    assert len(lm.calls) < 3


def test_the_last_word_after_all_turns_is_logged_too():
    logger = Turns()
    RLM(ScriptedLM(["```repl\n1\n```", "FINAL(last)"]), max_iterations=1, logger=logger).completion("x")
    assert [turn.final_answer for turn in logger.taken] == [None, "last"]


def test_the_arguments_are_given_to_log_metadata_without_keys():
    class Known(Turns):
        def log_metadata(self, metadata):
            self.metadata = metadata

    logger = Known()
    kwargs = {"model_name": "m", "api_key": "very-secret-key"}
    RLM("openai", kwargs, max_depth=3, logger=logger)
    assert isinstance(logger.metadata, RLMMetadata)
    assert (logger.metadata.root_model, logger.metadata.max_depth) == ("m", 3)
    assert "very-secret" not in str(logger.metadata.to_dict())


def test_iterations_are_cleared_before_each_completion():
    class Counting(Turns):
        def clear_iterations(self):
            self.taken.clear()

    logger = Counting()
    rlm = RLM(ScriptedLM(["```repl\nFINAL(1)\n```"] * 2), logger=logger)
    for _ in range(2):
        rlm.completion("x")
    assert len(logger.taken) == 1


def test_a_key_is_in_no_turn():
    logger = Turns()
    lm = ScriptedLM("```repl\nprint('a-very-secret-key')\nFINAL(1)\n```")
    lm.api_key = "a-very-secret-key"
    RLM(lm, logger=logger).completion("x")
    assert "a-very-secret-key" not in str(logger.taken[0].to_dict())


def test_a_key_of_the_environment_or_of_an_argument_is_in_no_turn(monkeypatch):
    monkeypatch.setenv("OTHER_API_KEY", "a-key-of-the-environment")
    logger, lm = Turns(), ScriptedLM("```repl\nprint(context)\nFINAL(1)\n```")
    keys = "a-key-of-the-environment and a-key-of-an-argument"
    RLM(lm, environment_kwargs={"env": {"MY_TOKEN": "a-key-of-an-argument"}}, logger=logger).completion(keys)
    assert "a-key-of" not in str(logger.taken[0].to_dict())


def test_a_logger_without_a_run_keeps_what_it_is_given():
    logger = RLMLogger()
    assert (logger.get_trajectory(), logger.iteration_count) == (None, 0)
    logger.log_metadata(RLMMetadata("m", 1, 2, "openai", {}, "local", {}))
    logger.log(RLMIteration("p", "r", []))
    assert logger.iteration_count == 1
    assert logger.get_trajectory()["iterations"][0]["response"] == "r"
    logger.clear_iterations()
    assert logger.iteration_count == 0


def test_a_logger_that_is_assigned_later_logs():
    logger = Turns()
    rlm = RLM(ScriptedLM("```repl\nFINAL(1)\n```"))
    rlm.logger = logger
    rlm.completion("x")
    assert (len(logger.taken), rlm.logger) == (1, logger)
