"""`llm_query` and its relatives, from wherever a cell calls them."""

from __future__ import annotations

import asyncio

import pytest

from rlm_kernel.kernel.guest.questions import query_names

pytestmark = pytest.mark.anywhere


async def test_llm_query_gives_the_cell_the_models_text(session):
    cell = await session.run("print(llm_query('meaning of life?'))")
    assert cell.stdout == "MEANING OF LIFE?\n"


async def test_the_model_name_and_the_kind_travel(session, echo):
    await session.run("llm_query('a', model='m'); rlm_query('b'); rlm_query_batched(['c', 'd'], 'n')")
    assert [(q.kind, q.prompts, q.model, q.batch) for q in echo.queries] == [
        ("llm_query", ("a",), "m", False),
        ("rlm_query", ("b",), None, False),
        ("rlm_query", ("c", "d"), "n", True),
    ]


@pytest.mark.everywhere
async def test_a_batch_keeps_the_order(session):
    cell = await session.run("llm_query_batched([f'p{i}' for i in range(1000)]) == [f'P{i}' for i in range(1000)]")
    assert cell.value == "True"


async def test_an_empty_batch_asks_nobody(session, echo):
    assert (await session.run("llm_query_batched([])")).value == "[]"
    assert echo.queries == []


async def test_a_failed_call_raises_in_the_cell(session):
    cell = await session.run("llm_query('fail')")
    assert (cell.error.name, cell.error.message) == ("QueryError", "llm_query has no answer: no luck")
    assert "guest.ask" not in cell.error.traceback


async def test_a_cell_catches_a_failed_call_by_name(session):
    cell = await session.run("try: llm_query('fail')\nexcept QueryError as error: print(error)")
    assert cell.stdout == "llm_query has no answer: no luck\n"
    cell = await session.run("[isinstance(one, FailedQuery) for one in llm_query_batched(['a', 'fail'])], ToolError")
    assert cell.value.startswith("([False, True], ")
    assert "QueryError" not in (await session.run("SHOW_VARS()")).value


async def test_a_failed_slot_of_a_batch_is_told_apart(session):
    cell = await session.run(
        "a, b = llm_query_batched(['fine', 'fail'])\nprint(a, b, type(b).__name__, isinstance(b, str))"
    )
    assert cell.stdout == "FINE Error: no luck FailedQuery True\n"
    assert "1 of 2 prompts" in cell.stderr


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("llm_query(5)", "str(...)"),
        ("llm_query_batched('one text')", "list of texts"),
        ("llm_query('x', model=3)", "name of a model"),
        ("llm_query_batched(['a', None])", "NoneType"),
    ],
)
async def test_a_wrong_prompt_is_a_type_error_that_says_what_to_do(session, echo, code, hint):
    cell = await session.run(code)
    assert cell.error.name == "TypeError"
    assert hint in cell.error.message
    assert echo.queries == []


@pytest.mark.everywhere
async def test_threads_may_ask(session, echo):
    cell = await session.run(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(32) as pool:\n"
        "    answers = list(pool.map(llm_query, [f'p{i}' for i in range(320)]))\n"
        "answers == [f'P{i}' for i in range(320)]"
    )
    assert cell.value == "True"
    assert set(echo.asked.values()) == {1}


@pytest.mark.parametrize("ask", ["llm_query('p')", "asyncio.run(allm_query('p'))"])
async def test_a_forked_process_may_not_ask(local_session, echo, ask):
    cell = await local_session.run(
        "import asyncio, multiprocessing\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        f"def question(): return {ask}\n"
        "with ProcessPoolExecutor(1, multiprocessing.get_context('fork')) as pool: pool.submit(question).result()"
    )
    assert (cell.error.name, echo.queries) == ("RuntimeError", [])
    assert "use threads or llm_query_batched" in cell.error.message


@pytest.mark.everywhere
async def test_gather_may_ask_with_the_async_twins(session):
    cell = await session.run(
        "import asyncio\n"
        "one = await asyncio.gather(*[allm_query(f'p{i}') for i in range(50)], allm_query_batched(['x', 'y']))\n"
        "two = await asyncio.gather(*[asyncio.to_thread(llm_query, f'q{i}') for i in range(50)])\n"
        "three = await arlm_query('r'), await arlm_query_batched(['s'])\n"
        "one[:2], one[-1], two[-1], three"
    )
    assert cell.value == "(['P0', 'P1'], ['X', 'Y'], 'Q49', ('R', ['S']))"


@pytest.mark.everywhere
async def test_a_prompt_of_five_megabytes_travels(session):
    cell = await session.run("answer_ = llm_query('ä' * 2_500_000)\nlen(answer_), answer_[0]")
    assert cell.value == "(2500000, 'Ä')"


async def test_any_text_travels(session, echo):
    await session.run(r"""echoed = llm_query('\ud800 \x00 "quotes" \\ {braces} \u2028 🙂')""")
    assert list(echo.asked) == ['\ud800 \x00 "quotes" \\ {braces} \u2028 🙂']
    assert (await session.run(r"""echoed == '\ud800 \x00 "QUOTES" \\ {BRACES} \u2028 🙂'""")).value == "True"


async def test_nothing_is_lost_or_asked_twice_while_the_cell_prints_a_million_lines(session, echo):
    cell = await session.run(
        "import threading\n"
        "answers = {}\n"
        "def ask():\n"
        "    for i in range(300): answers[i] = llm_query(f'p{i}')\n"
        "asker = threading.Thread(target=ask); asker.start()\n"
        "for i in range(1_000_000): print(i)\n"
        "asker.join()\n"
        "answers == {i: f'P{i}' for i in range(300)}"
    )
    assert cell.value == "True"
    assert echo.asked == {f"p{i}": 1 for i in range(300)}
    assert cell.stdout.count("\n") == 1_000_000


@pytest.mark.everywhere
async def test_a_question_that_is_sent_again_is_asked_once(session, echo, monkeypatch):
    # The guest sends until it is acknowledged; no acknowledgement comes before the answer here.
    monkeypatch.setattr("rlm_kernel.kernel.comm.ACKNOWLEDGE_AFTER", 60)
    await session.run("import sys; sys.modules['rlm_guest.repl'].RESEND_SECONDS = 0.01")
    comm, sent, often = session._comm, [], asyncio.Event()
    monkeypatch.setattr(comm, "_send", lambda *message: None)

    def counting(message):
        sent.append(message)
        comm.take_question(message)
        if len(sent) == 5:
            often.set()

    monkeypatch.setitem(session._kernel.channels._receiver.handlers, ("iopub", "comm_msg", "ask"), counting)
    echo.gate, echo.expected = asyncio.Event(), 1
    running = asyncio.create_task(session.run("llm_query('once')"))
    await asyncio.wait_for(often.wait(), 20)
    monkeypatch.setattr(comm, "_send", session._send_to_guest)
    echo.gate.set()
    assert (await running).value == "'ONCE'"
    assert echo.asked == {"once": 1}


@pytest.mark.everywhere
async def test_an_interrupt_reaches_thirty_two_waiting_threads(session, echo):
    echo.gate, echo.expected = asyncio.Event(), 32
    running = asyncio.create_task(
        session.run(
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(32) as pool:\n"
            "    list(pool.map(llm_query, [f'p{i}' for i in range(500)]))"
        )
    )
    await asyncio.wait_for(echo.everybody_waits.wait(), 20)
    session.interrupt()
    cell = await asyncio.wait_for(running, 20)
    assert cell.error.name == "KeyboardInterrupt"
    assert echo.cancelled == 32
    assert sum(echo.asked.values()) == 32
    assert (await session.run("1 + 1")).value == "2"


async def test_more_threads_may_ask_than_zmq_has_sockets(session, echo):
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "for _ in range(40):\n"
        "    with ThreadPoolExecutor(32) as pool: told = list(pool.map(llm_query, [f'p{i}' for i in range(32)]))\n"
        "told[-1]"
    )
    cell = await session.run(code)
    assert (cell.value, len(echo.queries)) == ("'P31'", 1280)


@pytest.mark.everywhere
async def test_an_interrupted_call_is_cancelled_on_the_host(session, echo):
    echo.gate, echo.expected = asyncio.Event(), 1
    running = asyncio.create_task(session.run("llm_query('slow')"))
    await asyncio.wait_for(echo.everybody_waits.wait(), 20)
    session.interrupt()
    assert (await running).status == "error"
    assert echo.cancelled == 1


@pytest.mark.parametrize(
    "code", ["x = llm_query('a')", "x = llm_query_batched(['a'] * 3)", "x = await allm_query('a')"]
)
async def test_an_interrupt_strikes_the_cell_and_not_what_follows_it(session, echo, code):
    for _ in range(5):
        echo.gate, echo.expected, echo.waiting = asyncio.Event(), 1, 0
        echo.everybody_waits.clear()
        running = asyncio.create_task(session.run(code))
        await asyncio.wait_for(echo.everybody_waits.wait(), 20)
        session.interrupt()
        cell = await asyncio.wait_for(running, 20)
        assert cell.kernel_alive
        assert cell.error.name in ("KeyboardInterrupt", "CancelledError")


async def test_a_cell_within_a_cell_leaves_the_outer_one_interruptible(local_session, echo):
    echo.gate, echo.expected = asyncio.Event(), 1
    running = asyncio.create_task(local_session.run("get_ipython().run_cell('1')\nllm_query('slow')"))
    await asyncio.wait_for(echo.everybody_waits.wait(), 20)
    local_session.interrupt()
    cell = await asyncio.wait_for(running, 20)
    assert (cell.error.name, cell.kernel_alive) == ("KeyboardInterrupt", True)


async def test_a_call_between_cells_is_refused(session, echo):
    await session.run(
        "import threading\n"
        "gate, box = threading.Event(), []\n"
        "def later():\n"
        "    gate.wait()\n"
        "    try: llm_query('late')\n"
        "    except Exception as error: box.append(str(error))\n"
        "late = threading.Thread(target=later); late.start()\n"
        "threading.Timer(0.3, gate.set).start()"
    )
    await asyncio.sleep(0.6)
    cell = await session.run("late.join(); box[0]")
    assert "refused" in cell.value
    assert echo.queries == []


async def test_a_forged_message_is_dropped(session, echo):
    code = (
        "kernel = get_ipython().kernel\n"
        "for data in ({}, {'wire': 99, 'op': 'ask', 'id': '1'}, {'wire': 1, 'op': 'ask', 'id': '2'}, 'text', None,\n"
        "             {'wire': 1, 'op': 'report', 'id': ''}, {'wire': 1, 'op': ['x'], 'id': {}}):\n"
        "    kernel.session.send(kernel.iopub_socket, 'comm_msg', {'comm_id': 'rlm-host', 'data': data},\n"
        "                        parent=kernel.get_parent('shell'), buffers=[b'\\x80 not json'])\n"
        "    kernel.session.send(kernel.iopub_socket, 'stream', {'nonsense': 1}, parent=kernel.get_parent('shell'))\n"
        "llm_query('still here')"
    )
    assert (await session.run(code)).value == "'STILL HERE'"
    assert echo.asked == {"still here": 1}


async def test_a_foreign_comm_still_gets_its_messages(session):
    await session.run(
        "from comm import create_comm\n"
        "got = []\n"
        "c = create_comm(target_name='other', comm_id='other-1')\n"
        "c.on_msg(lambda message: got.append(message['content']['data']))"
    )
    kernel, _ = session._live()
    kernel.channels.send("control", "comm_msg", {"comm_id": "other-1", "data": {"x": 1}})
    assert (await session.run("import time; time.sleep(0.2); got")).value == "[{'x': 1}]"


def test_the_functions_explain_themselves():
    assert "same order" in query_names(None, "llm_query", "Ask.")["llm_query_batched"].__doc__
