"""What becomes of a request whose messages are not what a well-behaved kernel sends."""

from __future__ import annotations

from rlm_kernel.kernel.execution import CellExecution

RAISED = {"status": "error", "ename": "QueryError", "evalue": "no answer", "traceback": ["QueryError: no answer"]}


def ended(request):
    return request.result("x", "error", None, 0.1, alive=True)


async def test_an_error_that_was_not_shown_is_taken_from_the_reply():
    result = ended(CellExecution("1", reply=RAISED))
    assert (result.error.name, result.error.message) == ("QueryError", "no answer")
    assert [output["output_type"] for output in result.outputs] == ["error"]


async def test_an_error_that_was_shown_is_not_told_twice():
    request = CellExecution("1", reply=RAISED)
    request.collector.add("error", {**RAISED, "evalue": "as shown"})
    result = ended(request)
    assert result.error.message == "as shown"
    assert len(result.outputs) == 1


async def test_a_forged_reply_is_no_error():
    assert ended(CellExecution("1", reply={"status": "error", "ename": 7})).error is None


async def test_a_forged_count_is_none():
    for forged in (-5, True, "1", [1]):
        assert ended(CellExecution("1", reply={"status": "ok", "execution_count": forged})).execution_count is None
    assert ended(CellExecution("1", reply={"status": "ok", "execution_count": 5})).execution_count == 5
