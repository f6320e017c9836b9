from __future__ import annotations

import ast
import contextlib
import io
from types import SimpleNamespace

import pytest

from rlm_kernel.prompts import SMALL
from rlm_kernel.prompts.context_preview import describe
from rlm_kernel.prompts.few_shot import asks_for_meaning, choose

SOURCES = {"a.py": "def f(): pass\n", "b.py": "x = 1\n"}
YES = ("heron", "cat is", "danced", "lamp", "eat", "enjoyed")


def run(code, names):
    """A cell in a plain namespace: what it prints, and the value of its last expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(tree, "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
    return (shown.getvalue() + ("" if value is None else repr(value))).strip()


def ask(prompt):
    if "one sentence" in prompt:
        return "It describes meals and tickets." if "zoo" in prompt or "class" in prompt else "A quiet trip on a ferry."
    return "Yes." if any(word in prompt for word in YES) else "No."


def ask_all(prompts):
    return [ask(prompt) for prompt in prompts]


@pytest.mark.parametrize("example", SMALL.examples, ids=lambda example: example.question)
@pytest.mark.filterwarnings("default")
def test_the_code_of_an_example_gives_the_output_that_it_shows(example):
    names = {"context": example.context, "get_ipython": SimpleNamespace, "llm_query": ask, "llm_query_batched": ask_all}
    exec(SMALL.setup_code, names)
    for step in example.steps:
        assert run(step.code, names) == step.output


@pytest.mark.parametrize("example", SMALL.examples, ids=lambda example: example.question)
def test_the_answer_of_an_example_stands_in_its_last_output(example):
    assert example.answer in example.steps[-1].output


@pytest.mark.parametrize("example", SMALL.examples, ids=lambda example: example.question)
def test_an_example_says_with_a_comment_what_its_code_computes(example):
    assert all(step.code.startswith("# ") for step in example.steps)


@pytest.mark.parametrize("example", SMALL.examples, ids=lambda example: example.question)
def test_an_example_is_the_one_chosen_for_its_own_question(example):
    chosen = choose(SMALL.examples, describe(example.context), example.question, 3)
    assert example in chosen


@pytest.mark.parametrize("example", SMALL.examples, ids=lambda example: example.question)
def test_an_example_asks_the_model_only_when_its_question_is_one_of_meaning(example):
    assert asks_for_meaning(example.question) == example.meaning
    assert ("llm_query" in "".join(step.code for step in example.steps)) == example.meaning


def test_the_best_fitting_example_comes_last():
    chosen = choose(SMALL.examples, describe(SOURCES), "In which file is the class Lion defined?", 3)
    assert chosen[-1].question == "In which file is the function portion defined?"


def test_a_question_of_meaning_is_shown_sub_calls_only():
    chosen = choose(SMALL.examples, describe(["one", "two"]), "How many of the remarks are positive?", 3)
    assert all(example.meaning for example in chosen)
    assert chosen[-1].question == "How many of the letters are complaints?"


def test_an_empty_context_still_gets_examples():
    assert len(choose(SMALL.examples, describe(""), "What?", 3)) == 3


def test_no_examples_are_chosen_when_none_are_wanted():
    assert choose(SMALL.examples, describe("x"), "What?", 0) == []
