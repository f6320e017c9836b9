"""Logs as the engine writes them, made of events: thirty turns with 600 sub-calls, hostile texts, very long lines."""

from __future__ import annotations

import asyncio
import base64
import io
import os

from rlm_kernel import errors
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.log import jsonl
from rlm_kernel.types import CellError, CellReport, CellResult, Reply, RLMChatCompletion, Usage, UsageMeter

QUESTION = "Which of the 600 contracts can be ended within 30 days, and what would that cost us?"
ANSWER = "**41 of 600** contracts can be ended within 30 days.\n\nThe dearest is `contract 217` (Acme): 14,200 a year."
HOSTILE = [
    "<script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title = 'owned'\">",
    "</script></style></pre><h1 id=broken>broken out</h1>",
    "\x1b[1;31mred\x1b[0m \x1b]0;title\x07 and \x1b[2Jcleared",
    "user\u202egnp.exe",
    "שלום עולם mixed مرحبا",
    "null \x00 bell \x07 backspace \x08",
]


class Story:
    """A log that is written event by event. Times are made up; each event is a little later than the one before."""

    def __init__(self, path, question=QUESTION, model="large-model"):
        self.path, self.model = path, model
        self.time, self.cells = 0.0, 0
        self.meter = UsageMeter()
        started = {"environment": "local", "context_type": "str", "context_length": 4_812_330, "max_iterations": 30}
        self.add(events.RunStarted, 0, model=model, sub_model="small-model", question=question, **started)
        self.add(events.KernelReady, 0.3, seconds=0.3)

    def add(self, event, after=0.01, /, **fields):
        self.time += after
        line = jsonl.line_of(event(time=self.time, **fields))
        if event is events.RunStarted:
            line |= {"timestamp": "2026-11-20T09:00:00+00:00", "root_model": self.model, "log_schema": 1}
        with self.path.open("a") as file:
            file.write(jsonl.text_of(line) + "\n")

    def usage(self, model, tokens, out, cost):
        usage = Usage(tokens, out, 0, cost)
        self.meter.add(model, usage)
        return usage

    def ask(self, iteration, text, after=2.0):
        messages = ({"role": "user", "content": f"Turn {iteration}: go on."},)
        self.add(events.IterationStarted, iteration=iteration, messages=messages)
        reply = Reply(text, self.model, self.usage(self.model, 2_000 + 700 * iteration, 180, 0.004))
        self.add(events.ModelReplied, after, iteration=iteration, reply=reply, seconds=after)

    def cell(self, iteration, code):
        self.cells += 1
        self.add(events.CellStarted, iteration=iteration, cell=self.cells, code=code)
        return self.cells

    def batch(self, cell, prompts, answer=lambda prompt: f"Notice period: 30 days. ({prompt[:20]})", failing=()):
        fields = {"cell": cell, "query": f"q{cell}", "model": "small-model"}
        self.add(events.SubcallStarted, kind="llm_query", prompts=tuple(prompts), **fields)
        for index, prompt in enumerate(prompts):
            error = "The provider failed: 503, request 7f3a" if index in failing else None
            usage = Usage() if error else self.usage("small-model", 850, 24, 0.0003)
            answered = {"text": "" if error else answer(prompt), "error": error, "usage": usage, "seconds": 0.4}
            self.add(events.SubcallAnswered, 0.02, index=index, prompt=prompt, **fields, **answered)
        self.add(events.SubcallFinished, cell=cell, query=f"q{cell}", failed=len(failing), seconds=0.02 * len(prompts))

    def result(self, iteration, cell, code, outputs=(), status="ok", error=None, seconds=0.5):
        result = CellResult(code, status, tuple(outputs), error, CellReport(), cell, seconds)
        self.add(events.CellFinished, 0.05, iteration=iteration, cell=cell, result=result)

    def finish_turn(self, iteration, answer=None):
        self.add(events.IterationFinished, iteration=iteration, seconds=3.0, answer=answer)

    def finish(self, answer=ANSWER):
        done = RLMChatCompletion(self.model, "", answer, self.meter.summary(), self.time)
        self.add(events.RunFinished, completion=done)


def turn(story, iteration, prompts, failing=()):
    """One turn with one cell that asks a batch."""
    code = f"pages = context.split('\\f')[{iteration * 20}:{iteration * 20 + 20}]\n"
    code += "found = llm_query_batched([ask(p) for p in pages])\n"
    code += "print(len(found), sum('30' in f for f in found))  # how many are short"
    story.ask(iteration, f"I read the next twenty contracts, from {iteration * 20}.\n\n```repl\n{code}\n```")
    cell = story.cell(iteration, code)
    story.batch(cell, prompts, failing=failing)
    failed = (
        CellError("KeyError", "'notice'", "Traceback (most recent call last):\nKeyError: 'notice'")
        if iteration == 7
        else None
    )
    outputs = [stream(f"{len(prompts)} {iteration % 4}\n")]
    if failed:
        coloured = [
            "\x1b[0;31mKeyError\x1b[0m  Traceback (most recent call last)",
            "\x1b[0;32m----> 1\x1b[0m row['notice']",
            "\x1b[0;31mKeyError\x1b[0m: 'notice'",
        ]
        outputs.append({"output_type": "error", "ename": "KeyError", "evalue": "'notice'", "traceback": coloured})
    story.result(iteration, cell, code, outputs, "error" if failed else "ok", failed)
    story.finish_turn(iteration)


def long_run(path, turns=30, calls=20):
    """Thirty turns, 600 sub-calls, a picture, a table, a failed cell, notices."""
    story = Story(path)
    for iteration in range(1, turns):
        prompts = [
            f"Contract {iteration * calls + n}: may it be ended within 30 days?\n\n{'Article. ' * 40}"
            for n in range(calls)
        ]
        turn(story, iteration, prompts, failing=(3,) if iteration == 5 else ())
    story.add(events.Notice, message="The kernel was restarted; 3 of its variables are back.")
    last_turn(story, turns, calls)
    story.finish()
    return path


def last_turn(story, iteration, calls):
    code = "import matplotlib.pyplot as plt\ntable.groupby('year').cost.sum().plot.bar()\ntable.head(3)"
    story.ask(iteration, f"Now the picture and the table.\n\n```repl\n{code}\n```\n\nFINAL_VAR(answer)")
    cell = story.cell(iteration, code)
    story.batch(cell, [f"Check {n}" for n in range(calls)])
    html = "<table><tr><td onclick=alert(1)>Acme</td></tr></table>"
    table = "   party  notice_days   cost\n0   Acme           14  14200\n"
    table += "1    Ube           30   9100\n2   Kilo           21   7700"
    story.result(iteration, cell, code, [picture(), value(table, html)])
    story.finish_turn(iteration, ANSWER)


def run_with_children(path):
    """Three children of one call, which do nearly the same."""
    story = Story(path, question="Which departments need a plan?")
    code = "plans = rlm_query_batched(questions)"
    story.ask(1, f"I ask a child for each department.\n\n```repl\n{code}\n```")
    cell = story.cell(1, code)
    questions = ("A plan for sales?", "A plan for research, with $x^2$?", "A plan for all who buy paper every day?")
    call = {"cell": cell, "query": "q1"}
    story.add(events.SubcallStarted, kind="rlm_query", prompts=questions, model="small-model", **call)
    for index, asked in enumerate(questions):
        for event in child(index, asked):
            story.add(events.ChildEvent, index=index, event=event, **call)
        answer = {"prompt": asked, "text": plan(index), "error": None, "usage": Usage(200, 40, 0, 0.002)}
        story.add(events.SubcallAnswered, index=index, model="small-model", seconds=2.4, **answer, **call)
    story.add(events.SubcallFinished, failed=0, seconds=3.0, **call)
    story.result(1, cell, code, [stream("3\n")])
    story.finish_turn(1, "All three.")
    story.finish("All three.")
    return path


def plan(index):
    return f"**Plan {index}**\n\n- hire {index} people\n- buy paper"


def child(index, question):
    """What happens in a child: two turns, the first with a cell."""
    code = f"part = context[{index}]\nprint(len(part))"
    usage = Usage(100 + index, 20, 0, 0.001)
    replies = [f"I look at it.\n\n```repl\n{code}\n```", "FINAL(done)"]
    about = {"model": "small-model", "sub_model": "small-model", "environment": "local", "context_type": "str"}
    yield events.RunStarted(time=0.0, question=question, context_length=10, max_iterations=10, depth=1, **about)
    for iteration, text in enumerate(replies, 1):
        at, reply = 1.2 * iteration, Reply(text, "small-model", usage)
        yield events.IterationStarted(
            time=at - 1.1, iteration=iteration, messages=({"role": "user", "content": "Go."},)
        )
        yield events.ModelReplied(time=at - 0.2, iteration=iteration, reply=reply, seconds=0.9)
        if iteration == 1:
            result = CellResult(code, "ok", (stream(f"{10 * index}\n"),), None, CellReport(), 1, 0.1)
            yield events.CellStarted(time=at - 0.1, iteration=1, cell=1, code=code)
            yield events.CellFinished(time=at, iteration=1, cell=1, result=result)
        yield events.IterationFinished(
            time=at, iteration=iteration, seconds=1.2, answer=plan(index) if iteration == 2 else None
        )
    meter = UsageMeter()
    meter.add("small-model", usage)
    yield events.RunFinished(
        time=2.4, completion=RLMChatCompletion("small-model", "", plan(index), meter.summary(), 2.4)
    )


def run_in(state, path):
    """A log of a run in a state, whose second cell is running where the run has no answer."""
    story = Story(path, question=f"A run that is {state}?")
    turn(story, 1, ["one", "two"])
    if state == "answered":
        story.finish("Forty-two")
        return path
    story.ask(2, "And now?\n\n```repl\nwait()\n```")
    story.cell(2, "wait()")
    failures = {
        "stopped": asyncio.CancelledError(),
        "limit": errors.BudgetExceededError(spent=1.0, budget=0.5),
        "failed": errors.LMError("gone", backend="b", model="m"),
    }
    if state in failures:
        story.add(events.RunFailed, 4.0, error=failures[state])
    if state == "lost":
        os.utime(path, (0, 0))
    return path


def hostile_run(path, long=10_000_000):
    """Every text of a run is hostile, and one output is very long."""
    everything = "\n".join(HOSTILE)
    story = Story(path, question=everything, model=HOSTILE[0])
    story.ask(1, f"{everything}\n```repl\n{everything}\n```")
    cell = story.cell(1, everything)
    story.batch(
        cell,
        [*HOSTILE, "long"],
        answer=lambda prompt: f"needle in the answer {'x' * long}" if prompt == "long" else prompt,
    )
    outputs = [
        stream(everything),
        stream("y" * long + "\nneedle at the end"),
        value(everything, everything),
        {"output_type": "display_data", "data": {"text/html": everything}, "metadata": {}},
    ]
    story.result(1, cell, everything, outputs)
    story.add(events.Notice, message=everything)
    story.finish_turn(1, everything)
    story.finish(everything)
    return path


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def value(text, html=None):
    data = {"text/plain": text} | ({"text/html": html} if html else {})
    return {"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": 1}


def picture():
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.4))
    figure.subplots().bar(["2022", "2023", "2024", "2025"], [31, 44, 52, 38])
    content = io.BytesIO()
    figure.savefig(content, format="png")
    encoded = base64.b64encode(content.getvalue()).decode()
    return {
        "output_type": "display_data",
        "data": {"image/png": encoded, "text/plain": "<Figure size 500x240>"},
        "metadata": {},
    }


ODD = (None, 0, -1, 1e308, "", [], {}, "x", ["a", None], {"a": None}, True, "2026", [[]], "<b>")


def damaged(value, chance, rate):
    """The same with odd values in odd places; a line stays of its type."""
    if chance.random() < rate:
        return chance.choice(ODD)
    if isinstance(value, dict):
        kept = ((key, inner) for key, inner in value.items() if chance.random() > rate / 3)
        return {key: inner if key == "type" else damaged(inner, chance, rate) for key, inner in kept}
    return [damaged(inner, chance, rate) for inner in value] if isinstance(value, list) else value
