"""A conversation is one log and one notebook, and its kernel comes back after a crash, a failure and a SIGKILL."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from agent_parts import cell, said
from loopback import MODEL
from nbclient import NotebookClient
from recorded_runs import notebook_beside

from rlm import RLM, AgentRLM, RecordingError, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel.cli import main
from rlm_kernel.replay.replayer import replay
from rlm_kernel.trajectory.log.reader import read_log

pytestmark = pytest.mark.slow


def double(number):
    return 2 * number


async def conversation(make, folder):
    """An agent after three messages, the last of which failed."""
    sub = ScriptedLM(lambda messages: messages[-1]["content"].upper(), model="sub")
    replies = [
        cell("found = [double(4), llm_query('yes'), context['user']]"),
        "FINAL(I found it.)",
        cell("FINAL([*found, context['late'], len(history)])"),
        cell("unfinished = 1"),
        ValueError("the script ends"),
    ]
    one = make(replies, logger=RLMLogger(folder), other_backends=[sub])
    one.register_tool("double", double)
    one.add_context("user", "Alex")
    assert await said(one, "Find it.") == "I found it."
    assert await said(one, "Show it.", context={"late": 1}) == "[8, 'YES', 'Alex', 1, 3]"
    with pytest.raises(ValueError, match="the script ends"):
        await said(one, "Fail.")
    return one


async def test_all_messages_are_in_one_log_and_one_notebook(agent, tmp_path):
    one = await conversation(agent, tmp_path)
    one.close()
    (log,) = tmp_path.glob("*.events.jsonl")
    run = read_log(log).trajectory
    assert [turn.message for turn in run.turns if turn.message] == ["Find it.", "Show it.", "Fail."]
    ends = [turn.message_end for turn in run.turns if turn.message_end]
    assert [(end.answer, end.error) for end in ends][::2] == [
        ("I found it.", None),
        (None, "ValueError: the script ends"),
    ]
    assert [turn.iteration for turn in run.turns] == [1, 2, 3, 4, 5]
    assert run.completion.response == "[8, 'YES', 'Alex', 1, 3]"
    text = notebook_beside(log).read_text()
    assert all(words in text for words in ("Find it.", "Show it.", "take_message()"))


async def test_the_record_replays_and_its_notebook_runs_in_a_stock_kernel(agent, tmp_path):
    (await conversation(agent, tmp_path)).close()
    (log,) = tmp_path.glob("*.events.jsonl")
    assert replay(log).equal
    assert replay(notebook_beside(log)).equal
    notebook = nbformat.read(notebook_beside(log), 4)
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    names = [one.metadata.rlm.get("cell") for one in notebook.cells if one.cell_type == "code"]
    assert [name for name in names if name] == [1, 2, 3, 4, 5, 6]


async def test_a_kernel_that_died_comes_back_with_what_it_had(agent):
    code = "import os\nfound = double(4)\ntell(os.getpid())"
    one = agent([cell(code), "FINAL(Found it now.)", cell("FINAL([found, history[0]['content']])")])
    calls, pids = [], []
    one.register_tool("tell", pids.append)
    one.register_tool("double", lambda number: calls.append(number) or 2 * number)
    await said(one, "Find it.")
    os.kill(pids[0], signal.SIGKILL)
    assert await said(one, "Show it.") == "[8, 'Find it.']"
    assert calls == [4]


async def test_a_resumed_agent_has_its_variables_context_tools_and_history(agent, tmp_path):
    (await conversation(agent, tmp_path)).close()
    (log,) = tmp_path.glob("*.events.jsonl")
    lm = ScriptedLM([cell("FINAL([*found, context, len(history), double(5)])")])
    calls = []
    tools = {"double": lambda number: calls.append(number) or 2 * number}
    again = AgentRLM.resume(log, backend=lm, other_backends=[lm], tools=tools, logger=RLMLogger(tmp_path / "again"))
    async with again:
        assert [m["content"] for m in again.get_conversation_history()][:3] == ["Find it.", "I found it.", "Show it."]
        assert again.interrupted_message is None
        answer = await said(again, "What is there?")
        assert answer == "[8, 'YES', 'Alex', {'user': 'Alex', 'late': 1}, 6, 10]"
        assert "`found`" in lm.calls[0].prompt
    assert (len(lm.calls), calls) == (1, [5])
    (new,) = (tmp_path / "again").glob("*.events.jsonl")
    messages = [turn.message for turn in read_log(new).trajectory.turns if turn.message]
    assert messages == ["Find it.", "Show it.", "Fail.", "What is there?"]
    assert replay(new).equal


KILLED = """
import asyncio, os, signal, sys
from rlm import AgentRLM, ScriptedLM
from rlm.logger import RLMLogger

def reply(messages):
    said = messages[-1]["content"]
    if "new message: The first" in said: return "```repl\\none = ask()\\n```"
    if "Output" in said and "two" not in said: return "FINAL(It is one.)"
    if "new message: The second" in said: return "```repl\\ntwo = ask() + one\\nprint('two', two)\\n```"
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    agent = AgentRLM(ScriptedLM(reply), logger=RLMLogger(sys.argv[1]))
    agent.register_tool("ask", lambda: 1)
    for message in ("The first.", "The second."):
        async for chunk in agent.chat(message):
            print(chunk)

asyncio.run(main())
"""


async def test_a_killed_conversation_goes_on_where_it_was(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (log,) = tmp_path.glob("*.events.jsonl")
    lm, calls = ScriptedLM(["FINAL(It is two now.)", cell("FINAL([one, two, len(history)])")]), []
    async with AgentRLM.resume(
        log, backend=lm, tools={"ask": lambda: calls.append(1)}, logger=RLMLogger(tmp_path / "on")
    ) as again:
        assert again.interrupted_message == "The second."
        assert await said(again, again.interrupted_message) == "It is two now."
        assert "two 2" in lm.calls[0].prompt
        assert await said(again, "All?") == "[1, 2, 5]"
    assert calls == []
    (new,) = (tmp_path / "on").glob("*.events.jsonl")
    assert replay(new).equal
    notebook = nbformat.read(notebook_beside(new), 4)
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(new.parent)}}).execute()


async def test_the_commands_take_the_log_of_a_conversation(tmp_path, provider, monkeypatch, capsys):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False)
    (log,) = tmp_path.glob("*.events.jsonl")
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    provider.script = ["FINAL(It is two now.)"]
    monkeypatch.chdir(tmp_path)
    model = ("--backend", "openai", "--model", MODEL, "--quiet")
    assert await asyncio.to_thread(main, ["resume", str(log), *model, "--log-dir", "on"]) == 0
    assert capsys.readouterr().out == "It is two now.\n"
    (new,) = (tmp_path / "on").glob("*.events.jsonl")
    assert await asyncio.to_thread(main, ["show", str(new)]) == 0
    assert "The second." in capsys.readouterr().out
    assert await asyncio.to_thread(main, ["resume", str(new), *model]) == 2
    assert "--question" in capsys.readouterr().err


async def test_a_killed_conversation_may_turn_to_another_message(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False)
    (log,) = tmp_path.glob("*.events.jsonl")
    lm = ScriptedLM([cell("FINAL([one, two, len(history)])")])
    async with AgentRLM.resume(log, backend=lm) as again:
        assert await said(again, "Never mind.") == "[1, 2, 4]"


async def test_the_two_kinds_of_logs_are_told_apart(agent, tmp_path):
    (await conversation(agent, tmp_path)).close()
    (log,) = tmp_path.glob("*.events.jsonl")
    with pytest.raises(RecordingError, match=r"AgentRLM\.resume"):
        RLM.resume(log, backend=ScriptedLM([]))
    with RLM(ScriptedLM(["FINAL(1 2 3)"] * 3), logger=RLMLogger(tmp_path / "other")) as rlm:
        rlm.completion("Count.")
    (log,) = Path(tmp_path / "other").glob("*.events.jsonl")
    with pytest.raises(RecordingError, match=r"RLM\.resume"):
        AgentRLM.resume(log, backend=ScriptedLM([]))


async def test_turns_of_a_message_that_fill_the_window_are_summarised(agent, tmp_path):
    lm = ScriptedLM(
        [
            cell("print('word ' * 300)"),
            cell("x = 1"),
            "I have printed words.",
            cell("kept = len(history)"),
            "FINAL(That is all.)",
            cell("FINAL([kept > 3, len(history)])"),
        ],
        context_window=1_000,
    )
    one = agent(lm, logger=RLMLogger(tmp_path))
    assert await said(one, "Print.") == "That is all."
    assert await said(one, "And?") == "[True, 3]"
    one.close()
    (log,) = tmp_path.glob("*.events.jsonl")
    assert replay(log).equal
    async with AgentRLM.resume(log, backend=ScriptedLM([cell("FINAL([kept > 3, len(history)])")])) as again:
        assert await said(again, "Again?") == "[True, 5]"


async def test_a_long_conversation_costs_no_more_per_message(agent):
    lm = ScriptedLM(lambda _: "FINAL(" + "so many words " * 50 + "indeed)")
    one = agent(lm)
    for number in range(30):
        await said(one, f"Message {number}. " + "And more words. " * 50)
    sizes = [len(str(call.messages)) for call in lm.calls]
    assert max(sizes[5:]) < 1.1 * sizes[5]
    assert "earlier messages are in `history`" in lm.calls[-1].prompt
