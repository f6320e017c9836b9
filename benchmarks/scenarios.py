"""What the model of a benchmark writes: a scenario is named by the model's name, as `turns-60` or `query-100`.

The same cells for every engine; only the words around a cell and the statement of the answer differ. A cell holds
statements only: one of the environments runs it with separate globals, where functions do not see imports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

PROMPT = "What is six times seven?"
SUB_ANSWER = "42"

_QUERY = """
import json, time
samples = []
for _ in range({0}):
    began = time.perf_counter()
    said = llm_query("What is six times seven?")
    samples.append(time.perf_counter() - began)
    assert said == "42", said
result = json.dumps(samples)
"""
_BATCH = """
import json, time
began = time.perf_counter()
answers = {1}(["What is six times seven?"] * {0})
samples = [time.perf_counter() - began]
assert len(answers) == {0}, len(answers)
assert "error" not in str(answers[0]).lower(), answers[0]
result = json.dumps(samples)
"""


def _batch(function: str) -> Callable[[int], str]:
    return lambda number: _BATCH.format(number, function)


_CELLS: dict[str, Callable[[int], str]] = {
    "query": _QUERY.format,
    "batch": _batch("llm_query_batched"),
    "children": _batch("rlm_query_batched"),
    "sleep": "import time; time.sleep({0} / 10)\nresult = 'slept'".format,
    "context": lambda _: "result = str(len(context))",
}


def reply(model: str, messages: Sequence[dict[str, Any]]) -> str:
    """The reply to a conversation: a sub-call has no system message and gets the answer at once."""
    if messages[0]["role"] != "system":
        return SUB_ANSWER
    name, _, number = model.removeprefix("dspy-").partition("-")
    is_dspy = model.startswith("dspy-")
    turn = _steps_of_dspy(messages) if is_dspy else sum(message["role"] == "assistant" for message in messages)
    ends = turn + 1 >= (int(number) if name == "turns" else 2)
    code = (
        f"print('done', {turn})\nresult = 'done'" if name == "turns" else "pass" if ends else _CELLS[name](int(number))
    )
    return (_dspy if is_dspy else _fenced)(code, ends=ends)


def _steps_of_dspy(messages: Sequence[dict[str, Any]]) -> int:
    """It writes its history into the last message."""
    return str(messages[-1]["content"]).count("=== Step ")


def _fenced(code: str, *, ends: bool) -> str:
    answer = '\nanswer["content"] = result\nanswer["ready"] = True' if ends else ""
    return f"The next step.\n\n```repl\n{code}{answer}\n```"


def _dspy(code: str, *, ends: bool) -> str:
    answer = "\nSUBMIT(result)" if ends else ""
    fields = {"reasoning": "The next step.", "code": f"```python\n{code}{answer}\n```", "completed": ""}
    return "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in fields.items())
