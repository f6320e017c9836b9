"""A lost kernel comes back with its variables, at no cost; a persistent one keeps them over completions."""

from __future__ import annotations

import asyncio
import signal

import pytest

from rlm import RLM, KernelError, RLMError, ScriptedLM
from rlm_kernel.engine import repl
from rlm_kernel.engine.budget import Limits
from rlm_kernel.engine.tools import tools_of
from rlm_kernel.kernel import session
from rlm_kernel.trajectory import events

pytestmark = pytest.mark.slow

DIE = "```repl\nimport os; os._exit(1)\n```"


def cell(code):
    return f"```repl\n{code}\n```"


@pytest.mark.everywhere
async def test_variables_come_back_and_no_model_is_asked_again(run):
    sub = ScriptedLM(lambda messages: messages[-1]["content"].upper(), model="sub")
    root = ScriptedLM([
        cell("a = llm_query('one')\nb = llm_query_batched(['two', 'two'])\nc = llm_query('one')"),
        cell("left_before_the_error = 1\n1/0"),
        DIE,
        cell("FINAL([a, b, c, left_before_the_error])"),
    ])  # fmt: skip
    completion = await run(root, others=(sub,))
    assert completion.response == "['ONE', ['TWO', 'TWO'], 'ONE', 1]"
    assert len(sub.calls) == 4
    assert completion.usage_summary.model_usage_summaries["sub"].total_calls == 4
    assert "Still there: `a`, `b`, `c`, `left_before_the_error`" in root.calls[3].prompt


async def test_the_same_question_gets_its_answers_in_order(run):
    answers = iter("abc")
    sub = ScriptedLM(lambda _: next(answers), model="sub")
    root = ScriptedLM([cell("x = [llm_query('q') for _ in range(3)]"), DIE, cell("FINAL(x)")])
    assert (await run(root, others=(sub,))).response == "['a', 'b', 'c']"


@pytest.mark.anywhere
async def test_a_tool_is_not_called_again(run):
    calls = []
    tools = tools_of({"tool": lambda x: calls.append(x) or len(calls)})
    root = ScriptedLM([cell("x = tool(5)"), DIE, cell("FINAL(x)")])
    assert (await run(root, tools=tools)).response == "1"
    assert calls == [5]


@pytest.mark.anywhere
async def test_chance_falls_the_same_way_again(run, kernel_place):
    # A Jupyter server starts the kernel, so hashes have no seed there.
    hashes = ", hash('text'), list({'a', 'b', 'c', 'd', 'e'})" if kernel_place[0] != "jupyter" else ","
    code = f"import random\nx = (random.random(){hashes})\nprint(x)"
    root = ScriptedLM([cell(code), DIE, cell("print(x)"), "FINAL(x)"])
    await run(root, seed=7)
    first = root.calls[1].prompt.split("Output:\n")[1].split("\n")[0]
    assert first in root.calls[3].prompt


async def test_a_question_that_was_never_asked_fails_in_a_rebuild(run):
    # Each run of this cell asks something else: the rebuilt one has no answer on record.
    code = "import time\ntry: x = llm_query(str(time.time_ns()))\nexcept Exception as error: y = str(error)"
    sub = ScriptedLM(lambda _: "answer", model="sub")
    root = ScriptedLM([cell(code), DIE, cell("FINAL(y)")])
    assert "not asked before" in (await run(root, others=(sub,))).response
    assert len(sub.calls) == 1
    assert "Lost: `x`" in root.calls[2].prompt


@pytest.mark.parametrize(("question", "asked"), [("'first'", 1), ("str(time.time_ns())", 2)])
async def test_what_the_setup_asks_is_asked_again_only_when_it_is_something_else(run, question, asked):
    setup = {"setup_code": f"import time\nknown = llm_query({question})"}
    sub = ScriptedLM(lambda _: "an answer", model="sub")
    root = ScriptedLM([DIE, cell("FINAL(known)")])
    assert (await run(root, others=(sub,), environment_kwargs=setup)).response == "an answer"
    assert len(sub.calls) == asked


class Patient(ScriptedLM):
    """A model that thinks, once it has given so many replies, until a kernel has died."""

    patience = 1

    def __init__(self, file, replies):
        super().__init__(replies)
        self._file = file

    async def complete(self, messages, **kwargs):
        if len(self.calls) >= self.patience:
            while not self._file.exists():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
        return await super().complete(messages, **kwargs)


def dying_soon(file):
    """A cell whose kernel dies a little later, the first time."""
    end = f"lambda: (open({str(file)!r}, 'w').close(), os._exit(1))"
    return cell(
        f"x = 41\nimport os, threading\nif not os.path.exists({str(file)!r}): threading.Timer(1, {end}).start()"
    )


@pytest.mark.parametrize(
    ("said", "response"),
    [([cell("y = x + 1"), cell("FINAL(y)")], "42"), (["FINAL_VAR(x)"], "41"), (["FINAL(words)"], "words")],
)
async def test_a_kernel_that_dies_while_the_model_thinks_comes_back(run, tmp_path, said, response):
    root = Patient(tmp_path / "died", [dying_soon(tmp_path / "died"), *said])
    assert (await run(root)).response == response
    if len(said) > 1:
        assert "restarted because it died between two cells. Still there: `x`" in root.calls[2].prompt


async def test_what_died_with_a_kernel_between_two_cells_is_told_with_an_answer_in_words_too(run, tmp_path):
    only_once = f"import os\nif not os.path.exists({str(tmp_path / 'died')!r}): y = 1"
    root = Patient(tmp_path / "died", [cell(only_once), dying_soon(tmp_path / "died"), "FINAL_VAR(y)", "FINAL(words)"])
    root.patience = 2
    assert (await run(root)).response == "words"
    assert "Still there: `x`. Lost: `y`.\n\nThere is no variable `y`" in root.calls[3].prompt


@pytest.mark.anywhere
async def test_it_comes_back_more_than_once(run):
    root = ScriptedLM([cell("x = [1]"), DIE, cell("x.append(2)"), DIE, cell("FINAL(x)")])
    assert (await run(root)).response == "[1, 2]"


async def test_five_hundred_children_and_a_flood_leave_the_state_whole(run):
    root = ScriptedLM([
        cell("import subprocess\nprocesses = [subprocess.Popen(['sleep', '600']) for _ in range(500)]\nn = 1"),
        cell("for i in range(1_000_000): print(i)\nm = 2"),
        cell("FINAL(n + m)"),
    ])  # fmt: skip
    assert (await run(root, limits=Limits(max_timeout=100))).response == "3"


def test_a_persistent_rlm_keeps_variables_contexts_and_conversations():
    lm = ScriptedLM([
        cell("kept = len(context)"),
        "FINAL(first)",
        cell("FINAL([kept, context, context_0, context_1, len(history_0), history_0[0]['role']])"),
    ])  # fmt: skip
    with RLM(lm, persistent=True) as rlm:
        assert rlm.completion("one").response == "first"
        assert rlm.completion("two").response == "[3, 'two', 'one', 'two', 5, 'system']"
    assert "`context_0`" in lm.calls[2].prompt
    assert "`kept`" in lm.calls[2].prompt


def test_the_answer_of_one_completion_is_not_that_of_the_next():
    ready = "answer['content'], answer['ready'] = {!r}, True"
    lm = ScriptedLM([
        cell(ready.format("one")),
        cell("seen = dict(answer), history"), cell(ready.format("two")),
        DIE, cell("FINAL([seen, answer])"),
    ])  # fmt: skip
    with RLM(lm, persistent=True) as rlm:
        assert [rlm.completion("first").response, rlm.completion("second").response] == ["one", "two"]
        clean = {"content": "", "ready": False}
        assert rlm.completion("third").response == str([(clean, []), clean])


@pytest.fixture
def dying_with_the_context(monkeypatch):
    """Has the first so many kernels killed when they receive the context."""
    put, killed = session.Session.put, []

    def dying(times):
        async def put_and_die(self, name, *content):
            if name == "context" and len(killed) < times:
                killed.append(self)
                await self._kernel._manager.provisioner.send_signal(signal.SIGKILL)
            await put(self, name, *content)

        monkeypatch.setattr(session.Session, "put", put_and_die)
        return killed

    return dying


async def test_a_kernel_that_dies_while_it_receives_the_context_is_started_again(run, dying_with_the_context):
    killed = dying_with_the_context(1)

    assert (await run(ScriptedLM([cell("FINAL(context)")]))).response == "some context"
    assert len(killed) == 1


async def test_a_context_that_ends_two_kernels_ends_the_run(run, dying_with_the_context):
    dying_with_the_context(2)
    with pytest.raises(KernelError, match="while it received context"):
        await run(ScriptedLM([cell("FINAL(context)")]))


def test_a_persistent_kernel_that_died_comes_back():
    lm = ScriptedLM([cell("kept = context"), "FINAL(first)", DIE, cell("FINAL([kept, context, context_0])")])
    with RLM(lm, persistent=True) as rlm:
        rlm.completion("one")
        assert rlm.completion("two").response == "['one', 'two', 'one']"


def test_a_persistent_rlm_is_whole_after_a_completion_that_failed():
    lm = ScriptedLM([cell("kept = context"), "FINAL(first)", ValueError("a bug"), cell("FINAL([kept, context])")])
    with RLM(lm, persistent=True) as rlm:
        rlm.completion("one")
        with pytest.raises(ValueError, match="a bug"):
            rlm.completion("two")
        assert rlm.completion("three").response == "['one', 'three']"


def test_a_kernel_that_dies_before_the_conversation_is_kept_does_not_cost_the_answer(tmp_path):
    last = cell("FINAL(history_0[-1]['content'])")
    lm = Patient(tmp_path / "died", [dying_soon(tmp_path / "died"), "FINAL(the answer)", last])
    with RLM(lm, persistent=True) as rlm:
        assert rlm.completion("one").response == "the answer"
        assert rlm.completion("two").response == "FINAL(the answer)"


async def test_a_persistent_rlm_is_free_again_however_often_its_completion_is_cancelled():
    replies = iter([cell("while True: pass"), cell("FINAL('free')")])
    async with RLM(ScriptedLM(lambda _: next(replies)), persistent=True) as rlm:
        running = asyncio.create_task(rlm.acompletion("one"))
        await asyncio.sleep(1)
        for _ in range(5):
            running.cancel()
            await asyncio.sleep(0.02)
        await asyncio.wait({running})
        assert (await rlm.acompletion("two")).response == "free"


async def test_sub_calls_end_with_the_completion_of_a_persistent_rlm():
    ask = "import threading\nthreading.Thread(target=llm_query_batched, args=[['q'] * 50]).start()"
    sub = ScriptedLM(lambda _: "answer", model="sub", delay=0.3)
    root = ScriptedLM([cell(f"{ask}\nimport time; time.sleep(0.5)\nFINAL('done')")])
    async with RLM(root, other_backends=[sub], persistent=True, max_concurrent_queries=2) as rlm:
        completion = await rlm.acompletion("one")
        asked = len(sub.calls)
        await asyncio.sleep(1)
        assert len(sub.calls) == asked
    counted = completion.usage_summary.model_usage_summaries["sub"].total_calls
    assert asked - 2 <= counted <= asked


async def test_closing_an_rlm_ends_the_completion_that_uses_its_kernel():
    asked = []

    def reply(_):
        asked.append(1)
        return cell("import time; time.sleep(0.3)")

    rlm = RLM(ScriptedLM(reply), persistent=True)
    running = asyncio.create_task(rlm.acompletion("one"))
    while len(asked) < 2:  # the kernel has run a cell
        await asyncio.sleep(0.05)
    await asyncio.to_thread(rlm.close)
    with pytest.raises(RLMError, match="closed while a completion used it"):
        await running


async def test_using_a_persistent_rlm_twice_at_once_is_an_error():
    async with RLM(ScriptedLM(lambda _: cell("FINAL(1)"), delay=0.2), persistent=True) as rlm:
        first, second = await asyncio.gather(rlm.acompletion("one"), rlm.acompletion("two"), return_exceptions=True)
        assert {type(first), type(second)} >= {RLMError}
        assert (await rlm.acompletion("three")).response == "1"


def test_a_persistent_rlm_at_the_greatest_depth_is_a_plain_completion():
    with RLM(ScriptedLM(["plain"]), persistent=True, max_depth=0) as rlm:
        assert rlm.completion("x").response == "plain"


def finished(rlm, events):
    """The answer of a completion, whose events are appended."""

    async def streamed():
        async for event in rlm.stream("two"):
            events.append(event)
        return events[-1].completion.response

    return asyncio.run(streamed())


LATE = """
import asyncio, signal, subprocess, threading, time
kept = 41

def forge():
    time.sleep(0.1)
    for _ in range(100):
        FINAL("forged")
        try:
            llm_query("billed")
        except BaseException:
            pass
        time.sleep(0.01)

{started}
FINAL(1)
"""

STARTED = {
    "thread": "threading.Thread(target=forge, daemon=True).start()",
    "timer": "threading.Timer(0.3, forge).start()",
    "disguised thread": "class Other(threading.Thread): __module__ = 'ipykernel.subshell'\n"
    "Other(target=forge, daemon=True).start()",
    "disguised task": "import ipykernel.kernelbase as base\nscope = {'forge': forge}\n"
    "exec(compile('async def soon(): forge()', base.__file__, 'exec'), scope)\n"
    "asyncio.get_running_loop().create_task(scope['soon']())",
    "task": "async def soon(): forge()\nasyncio.get_running_loop().create_task(soon())",
    "call": "asyncio.get_running_loop().call_later(0.2, forge)",
    "executor": "asyncio.get_running_loop().run_in_executor(None, forge)",
    "hook": "get_ipython().events.register('pre_run_cell', lambda *_: FINAL('forged'))",
    "progress bar": "import tqdm; bar = tqdm.tqdm(range(3))",
    "alarm": "signal.signal(signal.SIGALRM, lambda *_: forge()); signal.setitimer(signal.ITIMER_REAL, 0.2)",
}


@pytest.mark.parametrize("started", STARTED.values(), ids=STARTED)
def test_what_a_question_started_neither_answers_nor_asks_in_the_next_one(started):
    sub, notices = ScriptedLM(lambda _: "answer", model="sub"), []
    root = ScriptedLM(
        [cell(LATE.format(started=started)), cell("import time; time.sleep(0.5)"), cell("FINAL(kept + 1)")]
    )
    with RLM(root, other_backends=[sub], persistent=True) as rlm:
        rlm.completion("one")
        asked = len(sub.calls)
        assert finished(rlm, notices) == "42"
        assert len(sub.calls) == asked
    assert not any("started again" in getattr(event, "message", "") for event in notices)


STUBBORN = """
import threading, time
def forge():
    while True:
        try:
            time.sleep(0.01)
            FINAL("forged")
        except BaseException:
            pass
threading.Thread(target=forge, daemon=True).start()
lost = 1
"""


def test_a_thread_that_does_not_end_is_left_behind_with_its_kernel():
    notices = []
    root = ScriptedLM([cell("kept = 41"), cell(STUBBORN), cell("FINAL(1)"), cell("FINAL([kept, 'lost' in globals()])")])
    with RLM(root, persistent=True) as rlm:
        rlm.completion("one")
        assert finished(rlm, notices) == "[41, False]"
    assert any("left 1 thread that did not end" in getattr(event, "message", "") for event in notices)


@pytest.mark.parametrize("fork", [True, False])
def test_processes_of_a_question_end_before_the_next_one(fork):
    root = ScriptedLM([
        cell(
            "import subprocess\n"
            "daemon = 'setsid sleep 600 >/dev/null 2>&1 & echo $!'\n"
            "pids = [int(subprocess.run(daemon, shell=True, capture_output=True).stdout)]\n"
            "pids.append(subprocess.Popen(['sleep', '600']).pid)\nimport os\nFINAL(os.getpid())"
        ),
        cell("import os, psutil\nleft = [pid for pid in pids if psutil.pid_exists(pid)"
             " and psutil.Process(pid).status() != 'zombie']\nFINAL([os.getpid(), left])"),
    ])  # fmt: skip
    with RLM(root, environment_kwargs={"fork": fork}, persistent=True) as rlm:
        kernel = rlm.completion("one").response
        assert rlm.completion("two").response == f"[{kernel}, []]"


EXECUTOR = """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(2)
pool.submit(print).result()
"""
KEPT = {
    "executor": (EXECUTOR, "pool.submit(lambda: 1).result()"),
    "figures": ("import matplotlib.pyplot as plt\nplt.plot([1])", "plt.plot([1, 2])"),
}


@pytest.mark.parametrize(("first", "second"), KEPT.values(), ids=KEPT)
def test_what_waits_for_the_next_question_is_kept(first, second):
    notices = []
    root = ScriptedLM([cell(first), cell("FINAL(1)"), cell(second), cell("FINAL('kept')")])
    with RLM(root, persistent=True) as rlm:
        rlm.completion("one")
        assert finished(rlm, notices) == "kept"
    assert not any("started again" in getattr(event, "message", "") for event in notices)
    results = [event.result for event in notices if isinstance(event, events.CellFinished)]
    assert all(result.status == "ok" for result in results)
    shown = [output for result in results for output in result.outputs if "image/png" in output.get("data", {})]
    assert len(shown) == first.count("plt.plot")


LOST = """
kernel = get_ipython().kernel
kernel.rlm_guest.needed.put_back = list
kernel.shell.run_cell = kernel.shell.run_cell_async = kernel.shell.should_run_async = None
"""


async def test_a_variable_is_read_from_the_next_kernel_if_ipython_fails_to_run_cells(run):
    root = ScriptedLM([cell("x = 42"), cell(LOST), cell("print(1)"), "FINAL(x)"])
    assert (await run(root)).response == "42"
    root = ScriptedLM([cell("x = 42"), cell(LOST), cell("print(1)"), "FINAL(x + 1)", "FINAL(x + 1)"])
    assert (await run(root)).response == "43"


async def test_a_variable_is_read_from_the_next_kernel_if_a_callback_occupies_this_one(run, monkeypatch):
    monkeypatch.setattr(session, "READ_SECONDS", 0.5)
    monkeypatch.setattr(session, "INTERRUPT_GRACE", 0.3)
    monkeypatch.setattr(repl, "RESPONSE_SECONDS", 0.5)
    block = "import asyncio, time\n_ = asyncio.get_running_loop().call_later(0.3, time.sleep, 3600)"
    root = ScriptedLM([cell("x = 42"), cell(block), cell("time.sleep(0.4)"), "FINAL(x)"])
    assert (await run(root)).response == "42"


async def test_a_variable_whose_text_never_ends_is_not_the_answer(run, monkeypatch):
    monkeypatch.setattr(session, "READ_SECONDS", 0.5)
    endless = "class Endless:\n    def __str__(self):\n        while True: pass\na, x = Endless(), 42"
    root = ScriptedLM([cell(endless), "FINAL(a)", "FINAL(x)"])
    assert (await run(root)).response == "42"
    assert "`a` could not be read" in root.calls[2].prompt
