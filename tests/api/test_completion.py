"""`RLM` as the documents use it: synchronous, asynchronous, streamed, side by side, stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from places import living_kernels
from selection import mostly_full

from rlm import RLM, ConfigError, LMError, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel._async import Job
from rlm_kernel.trajectory.events import CellOutput, RunFailed, RunFinished


def counting():
    return ScriptedLM(lambda _: "```repl\nFINAL(len(context))\n```")


def endless():
    return ScriptedLM(lambda _: "```repl\nprint('running', flush=True)\nwhile True: pass\n```")


def test_a_completion_has_the_documented_fields():
    completion = RLM(counting()).completion({"a": 1, "b": 2}, root_prompt="how many?")
    assert (completion.root_model, completion.prompt, completion.response) == ("scripted", {"a": 1, "b": 2}, "2")
    assert completion.usage_summary.to_dict()["model_usage_summaries"]["scripted"]["total_calls"] == 1
    assert completion.execution_time > 0
    assert completion.metadata is None


def test_one_rlm_serves_threads_at_once():
    with RLM(counting()) as rlm, ThreadPoolExecutor(4) as pool:
        completions = list(pool.map(rlm.completion, ["x" * n for n in range(1, 9)]))
    assert [c.response for c in completions] == [str(n) for n in range(1, 9)]


async def test_one_rlm_serves_an_event_loop_at_once():
    async with RLM(counting()) as rlm:
        completions = await asyncio.gather(*(rlm.acompletion("x" * n) for n in range(1, 9)))
    assert [c.response for c in completions] == [str(n) for n in range(1, 9)]


async def test_a_sync_call_works_inside_a_running_loop():
    assert RLM(counting()).completion("abc").response == "3"


async def test_the_stream_ends_with_the_completion():
    events = [event async for event in RLM(counting()).stream("abcd")]
    assert isinstance(events[-1], RunFinished)
    assert events[-1].completion.response == "4"


async def test_a_failing_stream_says_so_and_raises():
    events = []
    with pytest.raises(LMError, match="no reply left"):
        await _collect(RLM(ScriptedLM([])).stream("x"), events)
    assert isinstance(events[-1], RunFailed)


async def _collect(stream, events):
    async for event in stream:
        events.append(event)


async def test_leaving_the_stream_stops_the_run():
    stream = RLM(endless()).stream("x")
    async for event in stream:
        if isinstance(event, CellOutput):
            break
    await stream.aclose()
    assert living_kernels() == []


async def test_cancelling_a_completion_leaves_nothing():
    """A kernel that was being forked at this moment ends by itself, some 10 ms later."""
    lm = endless()
    task = asyncio.create_task(RLM(lm).acompletion("x"))
    async with asyncio.timeout(20):
        while not living_kernels():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        while living_kernels():
            await asyncio.sleep(0.01)


async def test_completions_that_are_cancelled_at_once_leave_no_thread_and_no_empty_log(tmp_path):
    logger = RLMLogger(tmp_path)
    tasks = [asyncio.create_task(RLM(counting(), logger=logger).acompletion("x", "q")) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert living_kernels() == []
    assert not {"rlm-context", "rlm-notebook"} & {thread.name for thread in threading.enumerate()}
    assert [log for log in tmp_path.glob("*.jsonl") if not log.read_text()] == []


def test_tools_may_ask_an_rlm_themselves_many_at_once():
    def ask(text: str) -> str:
        with RLM(counting()) as inner:
            return inner.completion(text).response

    together = "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(8) as threads:\n"
    lm = ScriptedLM([f"```repl\n{together}    FINAL(list(threads.map(ask, ['abc'] * 8)))\n```"])
    with RLM(lm, custom_tools={"ask": ask}, max_timeout=120) as rlm:
        assert rlm.completion("x").response == str(["3"] * 8)


def test_a_failing_completion_leaves_nothing():
    with pytest.raises(LMError):
        RLM(ScriptedLM(["```repl\n1\n```"])).completion("x")
    assert living_kernels() == []


CTRL_C = textwrap.dedent(
    """
    import sys
    from rlm import RLM, CancellationError, ScriptedLM

    code = "answer['content'] = 'so far'\\n1" , "print('running', flush=True)\\nwhile True: pass"
    replies = iter(code)
    lm = ScriptedLM(lambda _: f"```repl\\n{next(replies)}\\n```")
    class View:
        def __call__(self, event):
            if type(event).__name__ == "CellOutput" and "running" in str(event.output):
                print("running", flush=True)
    import rlm_kernel.api as module
    original = module.Run.__init__
    def init(self, plan, readers, **kwargs):
        original(self, plan, [View()], **kwargs)
    module.Run.__init__ = init
    try:
        RLM(lm).completion("x")
    except CancellationError as error:
        print("stopped", error.partial_answer, flush=True)
    """
)


def test_ctrl_c_is_a_cancellation_error_with_the_draft():
    with subprocess.Popen([sys.executable, "-c", CTRL_C], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout.readline() == "running\n"
        kernel = psutil.Process(host.pid).children(recursive=True)
        os.kill(host.pid, signal.SIGINT)
        assert host.stdout.readline() == "stopped so far\n"
        host.wait(10)
    assert host.returncode == 0
    _, alive = psutil.wait_procs(kernel, timeout=5)
    assert alive == []


@pytest.mark.parametrize("prompt", [5, None, ("a", "tuple")])
def test_another_prompt_is_refused(prompt):
    with pytest.raises(ConfigError, match="prompt must be str, dict, list, bytes, a table or a Path"):
        RLM(counting()).completion(prompt)


def test_the_prompt_is_not_in_the_repr():
    assert "secret text" not in repr(RLM(counting()).completion("secret text"))


def test_a_model_behind_http(provider):
    provider.script = ["```repl\nprint(llm_query('hi'))\n```", "hello", "FINAL(done)"]
    with RLM("openai", {**provider.backend_kwargs, "model_name": "m"}) as rlm:
        completion = rlm.completion("x")
        assert completion.response == "done"
        assert completion.usage_summary.model_usage_summaries["m"].total_calls == 3
        assert [request.prompt for request in provider.requests][1] == "hi"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", mostly_full([25, 200], 25))
def test_many_completions_leak_nothing(monkeypatch, count):
    with RLM(counting()) as rlm, tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        rlm.completion("warm up")
        Job(all_threads_of_the_pool()).wait()
        before = footprint()
        for _ in range(count):
            rlm.completion("x")
        assert footprint() == before
        assert list(Path(directory).iterdir()) == []


async def all_threads_of_the_pool():
    """Start them: whether a completion starts one more is a matter of luck, and no leak."""
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.1) for _ in range(100)))


def footprint():
    me = psutil.Process()
    return {
        "processes": len(me.children(recursive=True)),
        "threads": threading.active_count(),
        "system threads": me.num_threads(),
        "descriptors": me.num_fds(),
    }
