"""A cell is a notebook cell."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from rlm_kernel.errors import ConfigError, KernelError
from rlm_kernel.kernel.channels import Channels
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment
from rlm_kernel.replay.replayer import replay

pytestmark = pytest.mark.anywhere


async def test_the_last_expression_is_shown_and_counted(session):
    first = await session.run("x = 20\nx + 1")
    second = await session.run("x * 2")
    assert (first.value, second.value) == ("21", "40")
    assert second.execution_count == first.execution_count + 1


@pytest.mark.everywhere
async def test_streams_are_kept_apart_and_in_order(session):
    cell = await session.run("import sys\nprint('a')\nprint('b', file=sys.stderr)\nprint('c')")
    assert (cell.stdout, cell.stderr) == ("a\nc\n", "b\n")


async def test_variables_set_before_an_exception_stay(session):
    failed = await session.run("kept = 5\n1 / 0\nlost = 6")
    assert failed.status == "error"
    assert failed.error.name == "ZeroDivisionError"
    assert "1 / 0" in failed.error.traceback
    assert (await session.run("kept, 'lost' in globals()")).value == "(5, False)"


async def test_variables_that_cannot_be_pickled_stay(session):
    await session.run("numbers = (i for i in range(3))\nnext(numbers)")
    assert (await session.run("next(numbers)")).value == "1"


async def test_functions_see_current_globals(session):
    await session.run("x = 1\ndef f():\n    return x")
    await session.run("x = 2")
    assert (await session.run("f()")).value == "2"


async def test_top_level_await_and_magics_work(session):
    cell = await session.run("import asyncio\nawait asyncio.sleep(0, 'slept')")
    assert cell.value == "'slept'"
    assert "Wall time" in (await session.run("%time 1 + 1")).stdout


@pytest.mark.everywhere
async def test_displays_keep_every_mime_type(session):
    code = (
        "from IPython.display import display\n"
        "display({'text/plain': 'p', 'text/html': '<b>p</b>', 'application/json': {'a': 1}}, raw=True)"
    )
    (output,) = (await session.run(code)).outputs
    assert output["output_type"] == "display_data"
    assert output["data"] == {"text/plain": "p", "text/html": "<b>p</b>", "application/json": {"a": 1}}


async def test_a_display_is_updated_in_place(session):
    code = "from IPython.display import display\nh = display('one', display_id=True)\nh.update('two')"
    (output,) = (await session.run(code)).outputs
    assert output["data"]["text/plain"] == "'two'"


async def test_output_is_reported_while_the_cell_runs(open_session, echo):
    seen = asyncio.Event()
    async with await open_session(on_output=lambda output: seen.set()) as session:
        running = asyncio.create_task(session.run("print('early', flush=True)\nllm_query('go on')"))
        echo.gate = asyncio.Event()
        await asyncio.wait_for(seen.wait(), 20)
        assert not running.done()
        echo.gate.set()
        assert (await running).stdout == "early\n"


async def test_a_million_lines_arrive_whole(session):
    cell = await session.run("for i in range(1_000_000):\n    print(i)")
    assert cell.dropped_characters == 0
    assert cell.stdout == "".join(f"{i}\n" for i in range(1_000_000))


@pytest.mark.everywhere
async def test_output_beyond_the_cap_keeps_head_and_tail(session):
    cell = await session.run("print('start')\nfor _ in range(200):\n    print('x' * 200_000)\nprint('end')\n1/0")
    assert cell.stdout.startswith("start\n")
    assert cell.stdout.endswith("end\n")
    assert cell.dropped_characters > 20_000_000
    assert cell.error.name == "ZeroDivisionError"


SLOW_TO_SEND = """
import sys, time
session = sys.stdout.session
make = session.msg
def slow(kind, *args, **kwargs):
    if kind == "stream": time.sleep(0.6)
    return make(kind, *args, **kwargs)
session.msg = slow
print("early")
time.sleep(0.5)  # by now the text has left the buffer, and is not sent yet
1 / 0
"""


async def test_text_that_is_being_sent_is_not_overtaken_by_the_error_and_the_end_of_its_cell(open_session):
    shown = []
    async with await open_session(on_output=lambda output: shown.append(output["output_type"])) as session:
        cell = await session.run(SLOW_TO_SEND)
    assert cell.stdout == "early\n"
    assert shown == ["stream", "error"]


@pytest.mark.parametrize(
    "code",
    [
        "input('? ')",
        "import getpass\ngetpass.getpass()",
        """
import threading
box = []
def ask():
    try: input()
    except EOFError as error: box.append(error)
t = threading.Thread(target=ask); t.start(); t.join(); raise box[0]
""",
    ],
)
async def test_stdin_is_refused_with_a_reason(session, code):
    cell = await session.run(code)
    assert cell.error.name == "EOFError"
    assert "nobody is at the keyboard" in cell.error.message


@pytest.mark.parametrize("code", ["exit()", "quit()", "exit", "import sys\nsys.exit(3)"])
async def test_leaving_does_not_end_the_kernel(session, code):
    await session.run("x = 7")
    await session.run(code)
    assert (await session.run("x")).value == "7"


@pytest.mark.everywhere
async def test_a_cell_that_takes_too_long_is_interrupted(session):
    cell = await session.run("x = 1\nwhile True: pass", timeout=0.5)
    assert (cell.status, cell.kernel_alive) == ("timeout", True)
    assert cell.error.name == "KeyboardInterrupt"
    assert (await session.run("x")).value == "1"


@pytest.mark.everywhere
async def test_a_cell_that_ignores_the_interrupt_is_killed(session):
    stubborn = "import time\nwhile True:\n    try: time.sleep(60)\n    except KeyboardInterrupt: pass"
    cell = await session.run(stubborn, timeout=0.3)
    assert (cell.status, cell.kernel_alive) == ("timeout", False)
    with pytest.raises(KernelError, match="restart"):
        await session.run("1")
    await session.restart()
    assert (await session.run("1 + 1")).value == "2"


@pytest.mark.everywhere
async def test_a_cell_that_kills_the_kernel_is_told_apart(session):
    cell = await session.run("print('last words', flush=True)\nimport os, time\ntime.sleep(0.5)\nos._exit(1)")
    assert (cell.status, cell.kernel_alive) == ("died", False)
    await session.restart()
    assert (await session.run("1 + 1")).value == "2"


@pytest.mark.everywhere
def test_setup_code_finds_the_modules_beside_the_script_in_a_run_and_in_its_replay(tmp_path):
    (tmp_path / "beside.py").write_text("KNOWN = 41")
    (tmp_path / "script.py").write_text(
        "from rlm import RLM, ScriptedLM\n"
        "from rlm.logger import RLMLogger\n"
        "lm = ScriptedLM(['```repl\\nFINAL(KNOWN + 1)\\n```'])\n"
        "setup = {'setup_code': 'from beside import KNOWN'}\n"
        "logger = RLMLogger('logs')\n"
        "print(RLM(lm, environment_kwargs=setup, logger=logger).completion('x', 'q').response)\n"
    )
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "../script.py"], cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=False
    )
    assert done.stdout == "42\n", done.stderr
    (notebook,) = (tmp_path / "elsewhere" / "logs").glob("*.ipynb")
    assert replay(notebook).equal


def test_a_kernel_elsewhere_is_not_told_where_the_script_is():
    code = {"setup_code": "x = 1"}
    assert environment("local", code).setup[1:] == ("x = 1",)
    assert environment("docker", code).setup == ("x = 1",)


async def test_setup_code_runs_first_and_a_broken_one_is_a_config_error(open_session):
    async with await open_session({"setup_code": "ready = 'yes'"}) as session:
        assert (await session.run("ready")).value == "'yes'"
    with pytest.raises(ConfigError, match=r"(?s)setup_code.*ZeroDivisionError"):
        await open_session({"setup_code": "1/0"})


async def test_the_memory_limit_is_a_memory_error(echo):
    async with await Session.open(environment("local", {"memory": "1g"}), echo) as session:
        cell = await session.run("data = bytearray(3 * 2**30)")
        assert cell.error.name == "MemoryError"
        assert (await session.run("1 + 1")).value == "2"


async def test_env_and_cwd_are_the_ones_asked_for(echo, tmp_path):
    options = {"env": {"GREETING": "hello"}, "cwd": str(tmp_path)}
    async with await Session.open(environment("local", options), echo) as session:
        cell = await session.run("import os\nprint(os.environ['GREETING'], os.getcwd())")
        assert cell.stdout == f"hello {tmp_path}\n"


async def test_a_kernel_that_cannot_start_says_why(echo):
    # A module of that name in front of ipykernel breaks it: the output must be in the error.
    options = {"env": {"PYTHONPATH": "/nonexistent", "PYTHONHOME": "/nonexistent"}}
    with pytest.raises(KernelError, match="(?s)ended while it started.*last output"):
        await Session.open(environment("local", options), echo)


async def test_a_subscription_may_come_too_late_for_the_first_messages(open_session, monkeypatch):
    deliver, heard = Channels._deliver, []

    def deaf_at_first(channels, channel, message):
        asked_again = message["parent_header"].get("msg_type") == "kernel_info_request"
        if channel != "iopub" or heard or asked_again:
            heard.extend([channel] if channel == "iopub" else [])
            deliver(channels, channel, message)

    monkeypatch.setattr(Channels, "_deliver", deaf_at_first)
    async with await open_session() as session:
        assert (await session.run("1 + 1")).value == "2"
    assert heard


async def test_closing_twice_is_fine(session):
    await session.close()
    await session.close()
    assert not session.alive


async def test_who_asks_for_the_banner_takes_no_random_number(echo):
    async with await Session.open(environment("local", None), echo, seed=0) as session:
        cell = await session.run("import random\nassert 'IPython' in get_ipython().banner\nrandom.random()")
    assert cell.value == "0.8444218515250481"
