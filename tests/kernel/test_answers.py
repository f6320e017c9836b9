"""How a cell gives the answer: the guest reports it, whatever way the model takes."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.anywhere


@pytest.mark.parametrize(
    ("code", "final"),
    [
        ("FINAL('done')", "done"),
        ("FINAL(42)", "42"),
        ("FINAL([1, 'a'])", "[1, 'a']"),
        ("FINAL('first'); FINAL('second')", "second"),
        ("x = 'value'; FINAL_VAR('x')", "value"),
        ("x = {'a': 1}; FINAL_VAR('x')", "{'a': 1}"),
        ("x = 3.5; FINAL_VAR(x)", "3.5"),
        ("FINAL_VAR('not a name, a text')", "not a name, a text"),
        ("answer['content'] = 'boxed'; FINAL_VAR('answer')", "boxed"),
        ("def f():\n    FINAL('inside')\nf()", "inside"),
        (
            "class Bad:\n    def __str__(self): raise ValueError('no')\nFINAL(Bad())",
            "<Bad that cannot be printed: ValueError: no>",
        ),
        (
            "class Row:\n    def __str__(self): return 'a'\n    def __getitem__(self, i): return {}[i]\nFINAL(Row())",
            "a",
        ),
        ("FINAL('kept')\nget_ipython().run_cell('1')", "kept"),
    ],
)
async def test_final_in_a_cell(session, code, final):
    assert (await session.run(code)).report.final == final


async def test_final_var_of_nothing_never_raises(session):
    cell = await session.run("FINAL_VAR('nothing')")
    assert (cell.status, cell.report.final) == ("ok", None)
    assert "no variable 'nothing'" in cell.stderr


@pytest.mark.parametrize(
    "code",
    [
        "answer['content'] = 'yes'; answer['ready'] = True",
        "answer['ready'] = True; answer['content'] = 'yes'",
        "answer.update(content='yes', ready=True)",
        "answer |= {'content': 'yes', 'ready': 1}",
        "answer = {'content': 'yes', 'ready': True}",
        "answer = dict(answer, content='yes', ready=True)",
    ],
)
async def test_the_answer_dict_is_read_after_the_cell(session, code):
    cell = await session.run(code)
    assert cell.report.answer == "yes"
    assert cell.report.restored == {}


UNRULY = """
class Array:  # compares each of its elements, as numpy's and pandas' do
    def __eq__(self, other): return self
    def __bool__(self): raise ValueError("The truth value is ambiguous.")
    def __str__(self): return "[1 2 3]"
class Unsaid(Exception):
    def __str__(self): raise self
class Proxy:
    __class__ = property(lambda self: 1 / 0)
    def __str__(self): raise Unsaid
class Nameless(type):
    __name__ = property(lambda self: 1 / 0)
class Leaving(metaclass=Nameless):
    def __str__(self): raise SystemExit
globals()[3, 4] = Proxy()
"""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Array()", "[1 2 3]"),
        ("Proxy()", "<Proxy that cannot be printed: Unsaid: <exception str() failed>>"),
        ("Leaving()", "<Leaving that cannot be printed: SystemExit>"),
    ],
)
async def test_whatever_the_answer_does_the_cell_is_reported(local_session, value, text):
    await local_session.run(UNRULY)
    report = (await local_session.run(f"thing = answer['content'] = {value}; answer['ready'] = True")).report
    assert (report.answer, report.draft, report.answer_json) == (text, text, None)
    assert report.variables["thing"] == value.removesuffix("()")
    assert (await local_session.run("FINAL(thing)")).report.final == text


async def test_an_answer_is_not_ready_when_nobody_can_tell(local_session):
    await local_session.run(UNRULY)
    cell = await local_session.run("answer.update(content='yes', ready=Array())")
    assert (cell.report.answer, cell.report.draft) == (None, "yes")
    assert "answer['ready'] takes True or False: ValueError: The truth value is ambiguous." in cell.stderr


async def test_a_draft_is_not_an_answer(session):
    report = (await session.run("answer['content'] = 'so far'")).report
    assert (report.answer, report.draft) == (None, "so far")


async def test_an_answer_that_is_no_dict_is_kept_elsewhere(session):
    report = (await session.run("answer = 'a text'")).report
    assert report.restored == {"answer": "my_answer"}
    assert (await session.run("my_answer, answer")).value == "('a text', {'content': '', 'ready': False})"


async def test_the_answer_of_one_cell_is_forgotten_in_the_next(session):
    await session.run("FINAL('old')")
    assert (await session.run("1")).report.final is None


@pytest.mark.everywhere
async def test_a_variable_is_read_from_outside(session):
    await session.run("x = {'a': 1}\nanswer['content'] = 'boxed'")
    assert (await session.report("x")).final == "{'a': 1}"
    assert (await session.report("answer")).final == "boxed"
    assert (await session.report("nothing")).final is None


async def test_reading_a_variable_leaves_no_trace(session):
    first = await session.run("x = 1")
    await session.report("x")
    assert (await session.run("x")).execution_count == first.execution_count + 1
