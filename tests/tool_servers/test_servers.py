"""MCP servers as tools, driven from cells. The servers do what real ones do, and what they must not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from selection import mostly_full

from rlm import RLM, AgentRLM, ConfigError, MCPServer, RecordingError, ScriptedLM
from rlm_kernel.mcp.server import ToolServer
from rlm_kernel.replay.replayer import replay

from .conftest import PLAIN, has_ended, is_alive, outcomes, plain_server

USE = (
    outcomes(
        "it.echo('hi')",
        "it.measure('km', places=[{}])",
        "it.measure(unit='m', from_='here')",
        "it.squares('m', 4)",
        "it.resources()",
        "it.read_resource('note://1')",
        "it.tools('square')",
        "it.fail()",
        "it.echo()",
        "it.nothing()",
        "llm_query('what is it?', images=[it.picture()])",
    )
    + "print(await it.aecho(text='ho'))\nhelp(it.measure)\nit.picture()"
)
SEEN = (
    "it.echo('hi') -> 'echo: hi'",
    """it.measure('km', places=[{}]) -> '{"places": [{}], "unit": "km"}'""",
    """it.measure(unit='m', from_='here') -> '{"from": "here", "unit": "m"}'""",
    "it.squares('m', 4) -> [0, 1, 4, 9]",
    "it.resources() -> [{'name': 'a note', 'uri': 'note://1'}]",
    r"it.read_resource('note://1') -> ['the note', b'\x00\x01']",
    "it.tools('square') -> [\"it.squares(unit: Literal['m', 'km'], count: int = 3,",
    "it.fail() -> ToolError the tool has no luck today",
    "it.echo() -> TypeError echo: missing a required argument: 'text'. It is called echo(text: str).",
    "it.nothing() -> AttributeError it has no tool 'nothing'",
    "images=[it.picture()]) -> 'a dot'",
    "echo: ho",
    "measure(unit: Literal['m', 'km'], count: int = 3, from_: str | None = None, places: list[dict] = None)",
    "<IPython.core.display.Image object>",
)


def test_tools_are_functions_with_python_values_and_a_replay_starts_no_server(runs, pids):
    flag, started = pids
    shown = runs(plain_server("chatty", flag), USE, other_backends=[ScriptedLM(["a dot"])])
    for text in SEEN:
        assert text in shown
    assert "`it.echo(text: str)` The tool echo." in runs.prompt
    report = asyncio.run(asyncio.to_thread(replay, runs.log))
    assert "equal to the recorded run" in str(report)
    assert len(started()) == 1
    assert has_ended(started()[0])


def test_a_resumed_run_answers_from_the_record_without_the_server(runs, pids):
    flag, started = pids
    runs(plain_server(flag), "x = it.echo('hi')", "print(x)")
    lm = ScriptedLM(["```python\nprint(x, await it.aecho('ho'))\n```", "FINAL(x)"])
    completion = RLM.resume(runs.log, at=1, backend=lm, logger=None)
    assert completion.response
    assert len(started()) == 1
    assert "is not in the log: give custom_tools again" in lm.calls[1].messages[-1]["content"]
    assert RecordingError.__name__ in lm.calls[1].messages[-1]["content"]


def test_a_server_that_dies_is_started_once_more(runs):
    cell = outcomes("it.die()", "it.echo('back')", "it.die()", "it.die()", "it.echo('again')")
    shown = runs(plain_server(), cell)
    assert "ConnectionError the MCP server it ended during it.die(…): exit status 3: out of luck" in shown
    assert "'echo: back'" in shown
    assert "had ended (exit status 3: out of luck), and was started again" in shown
    assert "again, and is not started any more" in shown


def test_a_server_that_hangs_ends_at_its_timeout(runs):
    shown = runs(plain_server(timeout=3.0), outcomes("it.hang()", "it.echo('back')"))
    assert "TimeoutError it.hang did not return within 3 seconds, and the server does not answer" in shown
    assert "'echo: back'" in shown


@pytest.mark.full
def test_large_results_come_through_up_to_the_limit_of_a_cell(runs):
    cell = outcomes("len(it.large(5_000_000))", "it.large(50_000_000)", "it.large(90_000_000)", "it.echo('back')")
    shown = runs(plain_server(timeout=60.0), cell)
    assert "len(it.large(5_000_000)) -> 5000000" in shown
    assert "ValueError it.large returned 50,000,025 bytes, and a cell can take 20,000,000" in shown
    assert "it sent a message of more than 80,000,000 bytes" in shown
    assert "'echo: back'" in shown


@pytest.mark.parametrize("silent", mostly_full([False, True], False))
def test_a_list_that_changes_while_a_cell_runs_is_noticed(runs, silent):
    shown = runs(plain_server(*(["silent"] if silent else [])), outcomes("it.grow()", "it.late('k')", "it.picture()"))
    assert "it.late('k') -> 'late: k'" in shown
    assert "it has no tool 'picture'" in shown or "has no tool 'picture' (any more)" in shown
    assert "The tools of it have changed. New: late. Gone: picture." in shown
    report = asyncio.run(asyncio.to_thread(replay, runs.log))
    assert "equal to the recorded run" in str(report)


def test_hostile_names_schemas_and_descriptions_harm_nothing(runs):
    expressions = [
        "it.liar()",
        "it.odd()",
        "it.cyclic()",
        "len(it.huge.__doc__) < 3000",
        "it.x_y('q')",
        "it.it_x_y('q')",
    ]
    expressions += ["it.import_('q')", "it.class_('q')", "it.it_tools('q')", "it.it_aecho('q')", "it.hello('q')"]
    shown = runs(plain_server("hostile"), outcomes(*expressions, "'\\x1b' in it.huge.__doc__", "print.__module__"))
    for text in (
        "it.liar() -> {'a': 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!'}",
        "it.odd() -> 'odd: None'",
        "__doc__) < 3000 -> True",
        "it.x_y('q') -> 'x;y: q'",
        "it.it_x_y('q') -> 'x.y: q'",
        "it.import_('q') -> '__import__: q'",
        "it.class_('q') -> 'class: q'",
        "it.it_tools('q') -> 'tools: q'",
        "it.it_aecho('q') -> 'aecho: q'",
        "in it.huge.__doc__ -> False",
        "print.__module__ -> 'builtins'",
    ):
        assert text in shown
    assert len(runs.prompt) < 40_000
    assert "more tools, which are not available" in runs.prompt


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (plain_server("broken"), "exit status 1: no licence found"),
        (plain_server("invalid"), r"does not follow the protocol \(tools\.\d+\.inputSchema\.type"),
        (plain_server("mute", timeout=1.0), "did not answer within 1 seconds"),
        (MCPServer("no-such-program"), "there is no program 'no-such-program'"),
        (MCPServer(url="http://127.0.0.1:9/mcp"), "ConnectError"),
    ],
)
def test_a_server_that_cannot_be_started_is_an_error_before_a_model_is_asked(runs, server, why):
    with pytest.raises(ConfigError, match=why):
        runs(server, "1")
    assert not runs.lm.calls


def test_what_may_change_something_needs_an_approval(runs):
    cell = outcomes("it.write('a')", "it.write(text='b')", "it.echo('c')")
    assert "PermissionError it.write was not called: it is not marked as read-only" in runs(plain_server(), cell)
    assert "it.write('a') -> 'write: a'" in runs(plain_server(), cell, approve=True)
    asked = []

    async def approve(call):
        asked.append(call)
        return call.arguments.get("text") == "b"

    shown = runs(plain_server(), cell, approve=approve)
    assert "it.write('a') -> PermissionError it.write was not called: the user did not allow it." in shown
    assert "it.write(text='b') -> 'write: b'" in shown
    assert [(call.server, call.tool, call.title, call.is_read_only) for call in asked] == [
        ("it", "write", "Write a note", False),
        ("it", "write", "Write a note", False),
        ("it", "echo", "echo", True),
    ]


def test_a_function_that_the_host_does_not_know_is_refused_before_the_server_could_have_it():
    """Else a cell that calls one at the moment in which the server adds it would get around the approval."""
    server = ToolServer("it", MCPServer("program"))
    for known in ("tools", "resources"):
        assert server.approval(known, (), {}) is None
    with pytest.raises(AttributeError, match="has no tool 'write'"):
        server.approval("write", ("a",), {})


def test_an_approval_that_does_not_decide_ends_the_run(runs):
    with pytest.raises(ConfigError, match="approve returned None: return True or False"):
        runs(plain_server(), "it.echo('a')", approve=lambda call: None)


def test_keys_of_a_server_reach_neither_the_kernel_nor_the_record(runs, monkeypatch):
    monkeypatch.setenv("HOST_API_KEY", "sk-of-the-host-42")
    server = plain_server(env={"NOTES_API_KEY": "sk-of-the-server-42"})
    shown = runs(server, outcomes("it.environment()"))
    assert "NOTES_API_KEY" in shown
    for place in (shown, runs.record, runs.prompt, repr(server)):
        assert "sk-of-the" not in place


def test_no_process_is_left_behind(runs, pids):
    flag, started = pids
    child = runs(plain_server(flag, "stubborn"), "print(it.child())").split()[0]
    assert has_ended(started()[0])
    assert has_ended(int(child))


@pytest.mark.parametrize("end", mostly_full([signal.SIGKILL, signal.SIGINT], signal.SIGKILL))
def test_no_process_outlives_a_host_that_is_killed(pids, tmp_path, end):
    flag, started = pids
    script = f"""
        import sys
        from rlm import RLM, MCPServer, ScriptedLM
        lm = ScriptedLM(["```python\\nprint(it.hang())\\n```"])
        server = MCPServer(sys.executable, [{str(PLAIN)!r}, {flag!r}, "stubborn"])
        RLM(lm, custom_tools={{"it": server}}).completion("", "q")
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stderr=subprocess.DEVNULL) as host:
        while not (tmp_path / "pids").exists() and host.poll() is None:
            os.sched_yield()
        assert is_alive(started()[0])
        host.send_signal(end)
    assert has_ended(started()[0])


def test_runs_of_one_rlm_share_a_server_and_so_does_an_agent(pids):
    flag, started = pids
    lm = ScriptedLM(["```python\nprint(it.echo('1'))\n```", "FINAL(a)"] * 2)
    with RLM(lm, custom_tools={"it": plain_server(flag)}) as rlm:
        rlm.completion("", "q")
        rlm.completion("", "q")
        assert len(started()) == 1
    lm = ScriptedLM(["```python\nprint(it.echo('1'))\n```", "FINAL(a)"] * 2)
    with AgentRLM(lm, custom_tools={"it": plain_server(flag)}) as agent:
        agent.completion("one")
        agent.completion("two")
    assert len(started()) == 2
    assert "echo: 1" in lm.calls[1].messages[-1]["content"]
    assert all(map(has_ended, started()))
