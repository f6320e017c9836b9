"""Cells that break what the kernel needs to reply: it is put right, or the kernel is lost within seconds."""

from __future__ import annotations

import asyncio
import sys

import pytest
from breakers import BREAKERS, EMPTIED, GROUPS
from selection import mostly_full

from rlm_kernel.kernel import watch

PATIENCE = 25
"""Seconds after which a cell hangs."""

BUSY = {
    "Python": "import time\nuntil = time.monotonic() + 0.7\nwhile time.monotonic() < until: pass",
    "sleep": "import time; time.sleep(0.7)",
    "await": "import asyncio; await asyncio.sleep(0.7)",
    "C code that holds the lock of the interpreter": "import ctypes; ctypes.PyDLL(None).usleep(700_000)",
    "a thread that holds it": "import ctypes, threading\n"
    "threading.Thread(target=ctypes.PyDLL(None).usleep, args=(700_000,)).start()",
    "a callback after the cell": "import asyncio, time; asyncio.get_event_loop().call_soon(time.sleep, 0.7)",
    "output": "for _ in range(20_000): print('x' * 1_000)",
}


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Look often, so that a test need not wait."""
    monkeypatch.setattr(watch, "CHECK_SECONDS", 0.2)


async def run(session, code):
    async with asyncio.timeout(PATIENCE):
        return await session.run(code)


async def begin(session):
    if not session.alive:
        await session.restart()
        await session.set("context", "abc")
    assert (await run(session, "kept = 41")).status == "ok"


async def after(session, name):
    """What is wrong after a breaker: nothing, when the kernel is lost, or all works as before."""
    if not session.alive:
        return None
    cell = await run(session, "print('x', llm_query('hi'), globals().get('kept'))\n_ = 1")
    kept = None if name in EMPTIED else 41
    if session.alive and f"x HI {kept}" not in cell.stdout.replace(".", ""):
        return name, cell
    cell = await run(session, "FINAL(len(context))") if session.alive else None
    return (name, cell) if cell is not None and session.alive and cell.report.final != "3" else None


@pytest.mark.skipif(sys.platform != "linux", reason="some stop a process in ways of Linux")
@pytest.mark.parametrize("group", mostly_full([*GROUPS], "modules"))
async def test_a_cell_that_breaks_the_kernel_never_hangs(open_session, group):
    wrong = []
    async with await open_session() as session:
        await session.set("context", "abc")
        for name in GROUPS[group]:
            await begin(session)
            await run(session, BREAKERS[name])
            wrong.append(await after(session, name))
            await session.close()
    assert not [*filter(None, wrong)]


@pytest.mark.parametrize(
    "name",
    [
        "stdout is None",
        "json.dumps",
        "builtins.len",
        "hooks removed",
        "no modules",
        "types",
        "contextvars",
        "tables of the kernel",
    ],
)
async def test_what_the_kernel_needs_is_put_back(open_session, name):
    async with await open_session() as session:
        await session.set("context", "abc")
        await begin(session)
        cell = await run(session, BREAKERS[name])
        assert cell.kernel_alive
        assert "it was put back" in cell.stderr
        assert await after(session, name) is None


@pytest.mark.everywhere
@pytest.mark.parametrize(
    "name", mostly_full(["threads are killed", "session is lost", "loop stopped"], "session is lost")
)
async def test_a_kernel_that_cannot_reply_is_lost(open_session, name):
    code = {
        **BREAKERS,
        "session is lost": "kernel = get_ipython().kernel\n"
        "async def nothing(*_): pass\n"
        "kernel.rlm_guest.needed = None; kernel.shell_handlers['execute_request'] = nothing",
    }[name]
    async with await open_session() as session:
        await session.set("context", "abc")
        await run(session, code)
        if session.alive:
            await run(session, "1")
        assert not session.alive
        await session.restart()
        assert (await run(session, "6 * 7")).status == "ok"


@pytest.mark.anywhere
async def test_a_stopped_process_is_lost(open_session, kernel_place):
    name, options = kernel_place
    if name not in ("local", "docker") or "transport" in options:
        pytest.skip("behind a relay, the kernel's libzmq is not asked")
    async with await open_session() as session:
        assert (await run(session, BREAKERS["stopped"])).status == "died"
        assert watch.STOPPED in session.why_it_died


async def test_a_kernel_that_is_idle_and_does_not_answer_is_lost(open_session):
    blocked = "import time; get_ipython().kernel.control_thread.io_loop.add_callback(time.sleep, 3600)"
    async with await open_session() as session:
        await session.set("context", "abc")
        await run(session, blocked)
        assert (await run(session, "llm_query('hi')")).status == "died"
        assert watch.NO_REPLY in session.why_it_died


async def test_a_cell_that_computes_is_not_taken_for_broken(open_session):
    async with await open_session() as session:
        await session.set("context", "abc")
        for name, code in BUSY.items():
            assert (await run(session, code)).status == "ok", name
            assert (await run(session, "1")).status == "ok", name


async def test_a_replacement_by_a_library_stays(open_session):
    library = "import sys, types\nmodule = types.ModuleType('library'); sys.modules['library'] = module\n"
    patch = (
        'dumps = json.dumps\nexec("def patched(*a, **k): return real(*a, **k)", vars(module)); module.real = dumps\n'
    )
    async with await open_session() as session:
        await session.set("context", "abc")
        reloaded = "import asyncio, json, importlib; importlib.reload(json); asyncio.Task = asyncio.tasks._PyTask\n"
        cell = await run(session, f"{reloaded}{library}{patch}json.dumps = module.patched")
        assert "put back" not in cell.stderr
        assert (await run(session, "assert json.dumps is module.patched")).status == "ok"


@pytest.mark.everywhere
async def test_lone_surrogates_are_shown_escaped(open_session):
    shown = "from IPython.display import Markdown, display\ndisplay(Markdown(context))"
    async with await open_session() as session:
        await session.set("context", "bad \udcff byte")
        cell = await run(session, "print('before'); print(context, '\\ud800 ü'); print('after')")
        assert cell.stdout == "before\nbad \\udcff byte \\ud800 ü\nafter\n"
        assert (await run(session, "import sys\n_ = sys.stderr.write(context)")).stderr == "bad \\udcff byte"
        assert (await run(session, shown)).outputs[0]["data"]["text/markdown"] == "bad \\udcff byte"
        cell = await run(session, "raise ValueError(context)")
        assert cell.error.message == "bad \\udcff byte"
        assert (await run(session, "FINAL(context)")).report.final == "bad \udcff byte"
