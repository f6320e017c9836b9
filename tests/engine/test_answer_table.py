"""The answer table against a model of it: any reply of cells and words, on a real kernel that is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm import RLM, ScriptedLM

STATEMENTS = st.sampled_from(
    [
        "x = 'value of x'",
        "y = 'value of y'",
        "print('words')",
        "FINAL('first')",
        "FINAL('second')",
        "FINAL_VAR('x')",
        "FINAL_VAR('y')",
        "answer['content'] = 'one'",
        "answer['ready'] = bool(answer['content'])",
        "answer.update(content='two', ready=True)",
        "answer |= {'ready': bool(answer['content'])}",
        "answer = {'content': 'three', 'ready': True}",
        "answer = {'content': 'four', 'ready': False}",
        "del answer",
        "FINAL = None",
        "1 / 0",
    ]
)
CELLS = st.lists(st.lists(STATEMENTS, min_size=1, max_size=4), max_size=3)
ANSWERS = ["FINAL(some words)", "FINAL(x)", "FINAL(y)", "FINAL_VAR(x)", "FINAL_VAR(y)"]
WORDS = st.sampled_from([*ANSWERS, "", "Then write FINAL(not an answer)."])
CLEAN = "globals().pop('x', 0), globals().pop('y', 0)\nanswer = {'content': '', 'ready': False}\nFINAL('clean')"
GO_ON = "FINAL('went on')"


class Table:
    """What the table says of one reply: its `answer`, or else a word that the model is `told`."""

    def __init__(self, cells, words):
        self.names, self.final, self.box = {"answer": {"content": "", "ready": False}}, None, None
        self.answer, self.told = None, "Turn 1 of"
        well = self.run_all(cells)
        if self.answer is None and (words.startswith("FINAL") or not cells):
            self.read(words, cells, well)

    def run_all(self, cells):
        """Until one raises or gives the answer. Returns whether none raised."""
        for cell in cells:
            well, self.answer = self.run(cell)
            if not well or self.answer is not None:
                return well
        return True

    def run(self, cell):
        """Whether a cell ends well, and the answer that it gives."""
        self.final = None
        before = self.names["answer"]
        self.names.update(FINAL=self.take, FINAL_VAR=lambda name: name in self.names and self.take(self.names[name]))
        try:
            exec("\n".join(cell), self.names)
            well = True
        except (ZeroDivisionError, NameError, TypeError):
            well = False
        box = self.names.setdefault("answer", before)
        return well, (box["content"] if box["ready"] else self.final) if well else None

    def take(self, value):
        self.final = value

    def read(self, words, cells, well):
        name, must_be_variable = words[words.find("(") + 1 : -1], words.startswith("FINAL_VAR")
        if not words.startswith("FINAL"):
            self.told = "neither code nor an answer"
        elif not cells:
            self.told = "Look at `context`"
        elif well and name in self.names:
            self.answer = self.names[name]
        elif well and must_be_variable:
            self.told = f"no variable `{name}`"
        else:
            self.told = "before the code's output was known"


class Says(ScriptedLM):
    """Says what it was given to say last."""

    def __init__(self):
        super().__init__(lambda _: self.replies.pop(0))
        self.replies = []


@pytest.fixture(scope="module")
def model():
    return Says()


@pytest.fixture(scope="module")
def rlm(model):
    with RLM(model, persistent=True) as kept:
        yield kept


def code(cell):
    return f"```repl\n{cell}\n```\n"


def ask(rlm, model, *replies):
    model.replies[:] = replies
    model.calls.clear()
    return rlm.completion("some context").response


@given(cells=CELLS, words=WORDS)
def test_any_reply_is_taken_as_the_table_says(rlm, model, cells, words):
    assert ask(rlm, model, code(CLEAN)) == "clean"
    table = Table(cells, words)
    response = ask(rlm, model, "".join(code("\n".join(cell)) for cell in cells) + words, code(GO_ON))
    if table.answer is not None:
        assert (response, len(model.calls)) == (table.answer, 1)
        return
    assert table.told in model.calls[1].prompt
    assert response == table.run([GO_ON])[1]


@given(cells=CELLS, words=st.sampled_from(ANSWERS))
def test_an_answer_in_words_is_taken_once_the_context_was_looked_at(rlm, model, cells, words):
    assert ask(rlm, model, code(CLEAN)) == "clean"
    cells = cells or [["print('words')"]]
    table = Table(cells, "")
    response = ask(rlm, model, "".join(code("\n".join(cell)) for cell in cells), words, code(GO_ON))
    if table.answer is not None:
        assert response == table.answer
        return
    name = words[words.find("(") + 1 : -1]
    if name in table.names:
        assert response == table.names[name]
    elif words.startswith("FINAL_VAR"):
        assert f"no variable `{name}`" in model.calls[2].prompt
    else:
        assert response == name
