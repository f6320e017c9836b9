"""Runs to record, and hosts to kill: a scripted root that uses a cell's sub-calls, tools, children and errors."""

from __future__ import annotations

import os
import sys

from recorded_runs import record_file

from rlm import RLM, ScriptedLM
from rlm.logger import RLMLogger

DELAY = 0.002
CONTEXT = {f"part {n}": "words " * 50 for n in range(100)}


def cell(code):
    return f"Some thoughts.\n```repl\n{code}\n```"


REPLIES = [
    cell("len(context)"),
    cell("answers = llm_query_batched([f'question {n}' for n in range(200)])\nlen(answers)"),
    cell("one = llm_query('alone')\ntwice = [llm_query('the same') for _ in range(2)]\nundefined_name"),
    cell("child = rlm_query('a child\\'s input', model='sub')"),
    cell("times = add(2, 3)\nimport random\nluck = random.random()"),
    cell("result = [len(answers), answers[199], one, twice, child, times, len(context)]\nresult"),
    "FINAL_VAR(result)",
]
CHILD_REPLIES = [cell("found = llm_query('asked by the child')"), cell("FINAL(found)")]
ANSWER = "[200, 'QUESTION 199 (1)', 'ALONE (1)', ['THE SAME (1)', 'THE SAME (2)'], 'ASKED BY THE CHILD (1)', 5, 100]"


def turn(messages):
    return sum(message["role"] == "assistant" for message in messages)


class Models:
    """A root and a sub-model that count what they are asked, so that a question asked twice is answered otherwise."""

    def __init__(self, known=()):
        self.asked = list(known)
        self.new = []
        self.root = ScriptedLM(self._lead, model="root", delay=DELAY)
        self.sub = ScriptedLM(self._answer, model="sub", delay=DELAY)

    def _ask(self, what):
        self.asked.append(what)
        self.new.append(what)
        return self.asked.count(what)

    def _lead(self, messages):
        self._ask(f"root turn {turn(messages)}")
        return REPLIES[turn(messages)]

    def _answer(self, messages):
        if messages[0]["role"] == "system":
            self._ask(f"child turn {turn(messages)}")
            return CHILD_REPLIES[turn(messages)]
        prompt = messages[-1]["content"]
        return f"{prompt.upper()} ({self._ask(prompt)})"


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def arguments(models):
    return {"backend": models.root, "other_backends": [models.sub], "custom_tools": {"add": add}}


def run(folder, **kwargs):
    """A whole run with a log and a notebook in a folder."""
    models = Models()
    logger = RLMLogger(folder)
    with RLM(**arguments(models), max_depth=2, logger=logger, **kwargs) as rlm:
        return rlm.completion(CONTEXT, "What is there?"), str(record_file(logger))


def serve():
    """Fork a host for each folder that comes on standard input: importing everything takes longer than a run."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(line.strip())
            os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    serve()
