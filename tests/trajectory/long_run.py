"""The events of a long run, without a kernel."""

from __future__ import annotations

from rlm_kernel.trajectory import events
from rlm_kernel.types import CellResult, Reply, Usage

TURNS, CALLS = 60, 20


def turn(number):
    yield events.IterationStarted(iteration=number, messages=({"role": "user", "content": "go on"},))
    yield events.ModelReplied(iteration=number, reply=Reply("text", "m"), seconds=1)
    yield events.CellStarted(iteration=number, cell=number, code="1")
    yield events.SubcallStarted(cell=number, query="q", kind="llm_query", model="m", prompts=("p",) * CALLS)
    for index in range(CALLS):
        yield events.SubcallAnswered(
            cell=number, query="q", index=index, model="m", prompt="p", text="a", error=None, usage=Usage(1, 1),
            seconds=1,
        )  # fmt: skip
    yield events.SubcallFinished(cell=number, query="q", failed=0, seconds=1)
    output = {"output_type": "stream", "name": "stdout", "text": "x"}
    result = CellResult("1", "ok", (output,), execution_count=number, seconds=1)
    yield events.CellFinished(iteration=number, cell=number, result=result)
    yield events.IterationFinished(iteration=number, seconds=1)


def started():
    return events.RunStarted(
        model="m", sub_model="m", environment="local", question="q", context_type="str", context_length=1,
        max_iterations=TURNS,
    )  # fmt: skip
