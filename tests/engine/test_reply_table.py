"""The table of replies against whole runs, on a real kernel that is kept."""

from __future__ import annotations

import pytest
from reply_table import OF_EACH_KIND, ROWS, VARIABLES
from selection import mostly_full

from rlm import RLM, Reply, ScriptedLM

SETUP = f"```repl\n{VARIABLES}\nglobals().pop('y', None)\n```"
LATER = "FINAL(asked again)"


class Model(ScriptedLM):
    """Writes what it was given to write last."""

    def __init__(self):
        super().__init__(lambda _: self.replies.pop(0))
        self.replies = []


@pytest.fixture(scope="module")
def model():
    return Model()


@pytest.fixture(scope="module")
def cells():
    return []


@pytest.fixture(scope="module")
def rlm(model, cells):
    def on_cell(request):
        cells.append(request.code)
        return True

    with RLM(model, persistent=True, on_cell=on_cell) as kept:
        yield kept


@pytest.mark.parametrize("row", mostly_full(ROWS, *OF_EACH_KIND), ids=lambda row: row.says)
def test_a_run_goes_on_as_the_table_says(rlm, model, cells, row):
    cells.clear()
    model.calls.clear()
    finish_reason = "stop" if row.finished else "length"
    model.replies[:] = [SETUP, Reply(row.reply, "scripted", finish_reason=finish_reason), LATER]
    response = rlm.completion("some context", "a question").response
    ran, evaluated = cells[1 : 1 + len(row.runs)], cells[1 + len(row.runs) :]
    assert ran == list(row.runs)
    assert all(cell.startswith("FINAL(") for cell in evaluated)
    assert response == (row.answer if row.answer is not None else "asked again")
    assert len(model.calls) == (3 if row.answer is None else 2)
    if row.told is not None:
        assert row.told in model.calls[2].prompt
