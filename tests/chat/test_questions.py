"""Questions during a turn."""

from __future__ import annotations

from rlm_kernel.chat.questions import Questions
from rlm_kernel.engine.gates import CellRequest, Refuse
from rlm_kernel.mcp.approval import ToolCall


class Desk:
    def __init__(self, *answers):
        self.answers, self.shown = list(answers), []

    def show(self, text, question, answer):
        self.shown.append((question, text))
        answer.set_result(self.answers.pop(0))


def call(tool, *, is_read_only=False):
    return ToolCall("files", tool, {"path": "a"}, is_read_only=is_read_only)


def test_a_call_that_changes_something_is_asked_about_once():
    questions = Questions()
    questions.desk = desk = Desk(True, False, False)
    calls = [call("read", is_read_only=True), call("write"), call("write"), call("remove"), call("remove")]
    assert [questions.approve(one) for one in calls] == [True, True, True, False, False]
    assert desk.shown[0] == ("Let files run write?", '{\n "path": "a"\n}')
    assert len(desk.shown) == 3


def test_where_nobody_can_be_asked_the_answer_is_no():
    assert Questions().approve(call("write")) is False
    assert isinstance(Questions().on_cell(CellRequest("x", 1)), Refuse)
