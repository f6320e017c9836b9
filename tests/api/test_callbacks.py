"""The reference's callbacks and sampling arguments."""

from __future__ import annotations

import sys
import warnings

import pytest

from rlm import RLM, ConfigError, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel.trajectory.log.reader import read_log


def test_the_callbacks_fire_with_the_documented_arguments():
    told = []

    def note(name):
        return lambda *arguments: told.append((name, *arguments))

    names = ("on_iteration_start", "on_iteration_complete", "on_subcall_start", "on_subcall_complete")
    lm = ScriptedLM(["```repl\nrlm_query('p' * 100)\n```", "```repl\nFINAL(llm_query('deep'))\n```", "sub", "FINAL(x)"])
    RLM(lm, max_depth=2, **{name: note(name) for name in names}).completion("x")
    plain = [entry[:3] if entry[0] == "on_iteration_complete" else entry for entry in told]
    plain = [(*entry[:3], entry[4]) if entry[0] == "on_subcall_complete" else entry for entry in plain]
    assert plain == [
        ("on_iteration_start", 0, 1),
        ("on_subcall_start", 1, "scripted", "p" * 80),
        ("on_iteration_start", 1, 1),
        ("on_iteration_complete", 1, 1),
        ("on_subcall_complete", 1, "scripted", None),
        ("on_iteration_complete", 0, 1),
        ("on_iteration_start", 0, 2),
        ("on_iteration_complete", 0, 2),
    ]


def test_a_sub_call_without_a_child_calls_no_callback():
    told = []
    lm = ScriptedLM(["```repl\nrlm_query('p')\nllm_query('q')\n```", "one", "two", "FINAL(x)"])
    calls = {name: lambda *given: told.append(given) for name in ("on_subcall_start", "on_subcall_complete")}
    RLM(lm, **calls).completion("x")
    assert told == []


def test_the_end_of_a_child_that_failed_has_its_error():
    told = []
    lm = ScriptedLM(
        ["```repl\ntry:\n    rlm_query('p')\nexcept Exception:\n    FINAL(1)\n```", RuntimeError("no luck")]
    )
    RLM(lm, max_depth=2, on_subcall_complete=lambda *given: told.append(given)).completion("x")
    ((depth, model, seconds, error),) = told
    assert (depth, model, seconds >= 0) == (1, "scripted", True)
    assert "no luck" in error


def test_a_callback_that_raises_does_not_end_the_run():
    def broken(*_):
        raise ValueError("a bug of the user's")

    with pytest.warns(RuntimeWarning, match="a bug of the user's"):
        assert RLM(ScriptedLM(["```repl\nFINAL(1)\n```"]), on_iteration_start=broken).completion("x").response == "1"


def test_a_callback_that_raises_is_called_again_and_reported_once_and_the_others_are_called():
    told = []

    def broken(name):
        def call(*_):
            told.append(name)
            raise ValueError(name)

        return call

    names = ("on_iteration_start", "on_iteration_complete", "on_subcall_start", "on_subcall_complete")
    child = "```repl\nFINAL(1)\n```"
    lm = ScriptedLM(["```repl\nrlm_query('a')\nrlm_query('b')\n```", child, child, "FINAL(x)"])
    with pytest.warns(RuntimeWarning) as warned:
        RLM(lm, max_depth=2, **{name: broken(name) for name in names}).completion("x")
    assert [told.count(name) for name in names] == [4, 4, 2, 2]
    assert sorted(str(w.message).split()[0] for w in warned if "raised" in str(w.message)) == sorted(names)


def test_a_callback_may_leave_the_program_and_the_engine_goes_on():
    def leave(_depth, iteration):
        if iteration == 2:
            sys.exit("enough")

    with pytest.raises(SystemExit, match="enough"):
        RLM(ScriptedLM(lambda _: "```repl\n1\n```"), on_iteration_start=leave).completion("x")
    assert RLM(ScriptedLM(["```repl\nFINAL(1)\n```"])).completion("x").response == "1"


def test_a_callback_of_a_sub_call_may_leave_the_program(tmp_path):
    logger = RLMLogger(tmp_path)
    lm = ScriptedLM(["```repl\nrlm_query('deep')\n```"] * 2, delay=0.1)
    leave = {"on_subcall_start": lambda *_: sys.exit("enough")}
    with pytest.raises(SystemExit, match="enough"):
        RLM(lm, logger=logger, max_depth=2, **leave).completion("x")
    assert read_log(logger.log_file_path).trajectory.failure is not None


def test_a_reader_that_fails_ends_no_run_where_warnings_are_errors():
    def broken(*_):
        raise ValueError("a bug of the user's")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert RLM(ScriptedLM(["```repl\nFINAL(1)\n```"]), on_iteration_start=broken).completion("x").response == "1"


def test_sampling_arguments_reach_the_requests_of_root_and_sub_calls(provider):
    provider.script = ["```repl\nprint(llm_query('hi'))\n```", "hello", "FINAL(done)"]
    arguments = {"sampling_args": {"temperature": 0.25}, "sub_sampling_args": {"temperature": 0.75}}
    with RLM("openai", provider.backend_kwargs, **arguments) as rlm:
        assert rlm.completion("x").response == "done"
    assert [request.body["temperature"] for request in provider.requests] == [0.25, 0.75, 0.25]


def test_sampling_arguments_need_the_name_of_a_backend():
    with pytest.raises(ConfigError, match="sampling_args goes with the name"):
        RLM(ScriptedLM([]), sampling_args={"temperature": 0})
