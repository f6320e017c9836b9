"""An agent with the real model: ten messages, a SIGKILL in the middle, and a notebook that runs without a model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from recorded_runs import notebook_beside

from rlm import AgentRLM, RLMError
from rlm.logger import RLMLogger
from rlm_kernel.replay.replayer import replay
from rlm_kernel.trajectory.log.reader import read_log

pytestmark = [pytest.mark.full, pytest.mark.timeout(900), pytest.mark.usefixtures("real_model")]

MESSAGES = [
    "How many rows does context['sales'] have?",
    "What is the sum of all amounts in context['sales']?",
    "Which city has the highest amount?",
    "Store the list of all cities in the variable cities, and say how many there are.",
    "How many cities begin with the letter B?",
    "Use the variable cities: what is the last one in the alphabet?",
    "What is the average amount?",
    "How many amounts are above 50?",
    "How many messages are in the list history?",
    "Which city has the lowest amount?",
]
SALES = [
    {"city": city, "amount": 13 * n % 101} for n, city in enumerate("Berlin Bern Basel Oslo Rome Paris Lyon".split())
]
CHAT = """
import asyncio, json, os, signal, sys
from rlm import AgentRLM, RLMError
from rlm.logger import RLMLogger
from rlm_kernel.trajectory import events

async def main(folder, sales, messages):
    agent = AgentRLM("llamacpp", logger=RLMLogger(folder), max_iterations=6)
    agent.add_context("sales", sales)
    for number, message in enumerate(messages):
        try:
            async for event in agent.events(message):
                if number == 4 and isinstance(event, events.CellFinished) and event.cell > 8:
                    os.kill(os.getpid(), signal.SIGKILL)
        except RLMError as error:
            print(error, file=sys.stderr)
        if number == 4:
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])))
"""


async def test_ten_messages_with_a_kill_in_the_middle(tmp_path):
    killed = subprocess.run(
        [sys.executable, "-c", CHAT, str(tmp_path), json.dumps(SALES), json.dumps(MESSAGES)],
        stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (log,) = tmp_path.glob("*.events.jsonl")
    answers = []
    async with AgentRLM.resume(log, logger=RLMLogger(tmp_path / "on")) as agent:
        assert agent.agent_context.context_data["sales"] == SALES
        rest = MESSAGES[4:] if agent.interrupted_message == MESSAGES[4] else MESSAGES[5:]
        for message in rest:
            try:
                answers.append("".join([chunk async for chunk in agent.chat(message)]))
            except RLMError as error:
                answers.append(repr(error))
    (new,) = (tmp_path / "on").glob("*.events.jsonl")
    messages = [turn.message for turn in read_log(new).trajectory.turns if turn.message]
    assert messages == MESSAGES
    assert sum("Error(" not in answer for answer in answers) >= len(answers) // 2, answers
    assert replay(new).equal
    notebook = nbformat.read(notebook_beside(new), 4)
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(new.parent)}}).execute()
    print("\n".join(map(repr, zip(rest, answers, strict=True))))
