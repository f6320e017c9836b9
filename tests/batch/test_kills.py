"""A batch that is killed at random moments and gone on with: no call that is on record is asked again.

Every reply of the provider has a name, so the logs say which calls were on record at a kill. `-s` shows the counts.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from pathlib import Path

import pytest
from loopback import MODEL, LoopbackProvider, Request, Says
from selection import mostly_full

from rlm_kernel.engine.recorded import RecordedRun, merged
from rlm_kernel.trajectory import events
from rlm_kernel.types import Reply, Slot, Usage

BATCH = """
import sys
from rlm import RLM

with RLM(backend="openai", backend_kwargs={"model_name": sys.argv[1], "max_retries": 0}, max_depth=2) as rlm:
    for result in rlm.map("tasks.jsonl", out="out.jsonl", max_concurrent=4):
        assert result.error is None, result.error
"""
TURNS = (
    "print(llm_query_batched(['fact 1 of {0}', 'fact 2 of {0}']), rlm_query('child of {0}'))",
    "print(llm_query('fact 3 of {0}'))",
    "FINAL('done {0}')",
)
TURNS_OF_CHILD = ("deep = llm_query('deep of {0}')\nprint(deep)", "FINAL(deep)")
CALLS = len(TURNS) + 3 + len(TURNS_OF_CHILD) + 1
"""Of one task."""
_NAME = re.compile(r"alpha-\d+")
_CALL = re.compile(r"<<(.+?)>>")


class NamedReplies:
    """The script of a provider, whose replies have names. `asked`: how often each was."""

    def __init__(self, seed: int) -> None:
        self.asked: Counter[str] = Counter()
        self._random = random.Random(seed)

    def __call__(self, request: Request) -> Says:
        task = _NAME.findall(request.said)[0]
        turn = sum(message["role"] == "assistant" for message in request.messages)
        if request.prompt.startswith(("fact", "deep")):
            call, cell = request.prompt, None
        elif f"What is {task}?" in request.said:
            call, cell = f"{task} turn {turn}", TURNS[turn]
        else:
            call, cell = f"child of {task} turn {turn}", TURNS_OF_CHILD[turn]
        self.asked[call] += 1
        code = "" if cell is None else f"\n```repl\n{cell.format(task)}\n```"
        return Says(f"<<{call}>>{code}", delay=self._random.uniform(0.0, 0.02))


def recorded(logs: Path) -> set[str]:
    """The names of the replies in whole lines of the logs."""
    lines = [line for log in logs.glob("*.jsonl") for line in log.read_bytes().split(b"\n")[:-1]]
    return set(_CALL.findall("\n".join(line.decode() for line in lines)))


def start(folder: Path, provider: LoopbackProvider) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **provider.environment}
    return subprocess.Popen([sys.executable, "-c", BATCH, MODEL], cwd=folder, env=environment, stderr=subprocess.PIPE)


def kill_at_a_random_moment(process: subprocess.Popen[bytes], provider: LoopbackProvider, chance: random.Random) -> str:
    """Kill it while it starts, or some calls later. Returns when."""
    if chance.random() < 0.15:
        moment = f"{(seconds := chance.uniform(0.1, 1.5)):.2f} s after its start"
    else:
        calls, seconds = chance.randint(1, 8), chance.uniform(0.0, 0.3)
        moment = f"{seconds:.2f} s after {calls} calls"
        awaited = len(provider.requests) + calls
        while len(provider.requests) < awaited and process.poll() is None:
            time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    _, shown = process.communicate()
    assert (process.returncode, shown) == (-signal.SIGKILL, b""), "it ended before it was killed"
    return moment


@pytest.mark.timeout(500)
@pytest.mark.parametrize("kills", mostly_full([2, 20], 2))
def test_a_killed_batch_goes_on_and_asks_no_recorded_call_again(
    kills: int, tmp_path: Path, provider: LoopbackProvider
) -> None:
    tasks = kills + 3
    seed = int(os.environ.get("RLM_SEED", random.randrange(10**6)))
    print(f"\nRLM_SEED={seed}")
    chance, replies = random.Random(seed), NamedReplies(seed)
    provider.script = replies
    rows = [
        {"id": f"{n}", "context": f"about alpha-{n:02}", "question": f"What is alpha-{n:02}?"} for n in range(tasks)
    ]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    on_record: dict[str, int] = {}
    for number in range(kills):
        moment = kill_at_a_random_moment(start(tmp_path, provider), provider, chance)
        for call in recorded(tmp_path / "out_logs"):
            on_record.setdefault(call, replies.asked[call])
        print(f"kill {number + 1}: {moment}; {sum(replies.asked.values())} asked, {len(on_record)} on record")
        assert {call: replies.asked[call] for call in on_record} == on_record
    last = start(tmp_path, provider)
    _, shown = last.communicate()
    asked = sum(replies.asked.values())
    start(tmp_path, provider).communicate()

    print(f"{len(replies.asked)} calls, {asked} asked, {asked - len(replies.asked)} of them in flight at a kill")
    assert (last.returncode, shown.decode()) == (0, "")
    assert {call: replies.asked[call] for call in on_record} == on_record
    assert len(replies.asked) == tasks * CALLS
    assert sum(replies.asked.values()) == asked, "a finished batch asks nothing"
    answers = [json.loads(line)["answer"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert answers == [f"done alpha-{n:02}" for n in range(tasks)]


def test_records_of_one_run_are_joined_with_those_of_its_children() -> None:
    turns = [events.ModelReplied(time=0.0, seconds=0.0, iteration=n, reply=Reply("", "m", Usage())) for n in (1, 2)]
    one, two = Slot(1, "one", 0), Slot(1, "two", 0)
    first = RecordedRun(deque(turns[:1]), children={one: RecordedRun(deque(turns)), two: RecordedRun()})
    second = RecordedRun(deque(turns), children={one: RecordedRun(deque(turns[:1])), two: RecordedRun(deque(turns))})

    for runs in ((first, second), (second, first)):
        whole = merged(runs)
        assert len(whole.replies) == len(whole.children[one].replies) == len(whole.children[two].replies) == 2
