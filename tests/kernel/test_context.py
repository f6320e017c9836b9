"""Values cross to the kernel as they are."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path

import psutil
import pytest

from rlm_kernel.errors import ConfigError
from rlm_kernel.kernel.protocol import encode_for_sending

pytestmark = pytest.mark.anywhere


class OnlyHere:
    """Can be pickled, and not be unpickled."""

    def __reduce__(self):
        return int, ("not a number",)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "plain",
        "lone \ud800 surrogate \udcff",
        'nul \x00 and \'quotes\' """ {braces} \\ %s',
        "🙂 ünï",
        [],
        [1, 2.5, None, True, "x", ["nested", {"a": 1}]],
        {},
        {"a": {"b": [1, 2]}},
        {1: "integer keys", (2, 3): "tuple keys", None: 4},
        {"inf": float("inf"), "big": 10**40, "bytes": b"\x00\xff"},
    ],
    ids=repr,
)
async def test_a_context_arrives_exactly(session, value):
    await session.set("context", value)
    assert (await session.run("ascii(context)")).value == repr(ascii(value))
    assert (await session.run("type(context).__name__")).value == repr(type(value).__name__)


async def test_a_long_text_is_sent_without_a_copy_and_arrives_exactly(session):
    tracemalloc.start()
    try:
        encoding, view = encode_for_sending("".join(f"{n:07} " for n in range(400_000)))
        held = tracemalloc.get_traced_memory()[0]
        assert held < 4_000_000  # the text itself
        assert (encoding, bytes(view[-9:])) == ("text", b" 0399999 ")
    finally:
        tracemalloc.stop()
    for last in ("", "ü", "\ud800"):
        await session.set("context", "".join(f"{n:07} " for n in range(400_000)) + last)
        expected = f"''.join(f'{{n:07}} ' for n in range(400_000)) + {last!r}"
        assert (await session.run(f"context == {expected}")).value == "True"


async def test_a_value_that_cannot_travel_says_what_to_do(session):
    with pytest.raises(ConfigError, match="cannot be sent.*as text, numbers, lists and dicts"):
        await session.set("context", [lambda: None])


async def test_a_value_the_kernel_cannot_read_says_what_to_do(session):
    with pytest.raises(ConfigError, match="cannot read context.*as text, numbers, lists and dicts"):
        await session.set("context", [OnlyHere()])
    assert (await session.run("1 + 1")).value == "2"


@pytest.mark.everywhere
async def test_a_context_can_be_replaced(session):
    await session.set("context", "one")
    await session.set("context", "two")
    assert (await session.run("context")).value == "'two'"


async def test_half_a_gigabyte_costs_no_copy_in_the_host_and_two_in_the_kernel(local_session):
    session = local_session
    size = 500_000_000
    text = "0123456789" * (size // 10)
    host = psutil.Process()
    kernel = psutil.Process(int((await session.run("import os; os.getpid()")).value))
    host_before, kernel_before = host.memory_info().rss, kernel.memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    await session.set("context", text)
    assert (await session.run("len(context), context[-1]")).value == f"({size}, '9')"
    # `host_before` holds the text itself, which is sent from there.
    assert _peak(host.pid) - host_before < 0.2 * size
    assert _peak(kernel.pid) - kernel_before < 2.2 * size
    async with asyncio.timeout(10):  # the system takes a moment to have the message's pages back
        while kernel.memory_info().rss - kernel_before > 1.2 * size:
            await asyncio.sleep(0.02)


@pytest.mark.everywhere
async def test_our_names_are_put_back_and_the_cells_value_is_kept(session):
    await session.set("context", "the input")
    cell = await session.run("context = context.upper()\nllm_query = None\ndel SHOW_VARS")
    assert cell.report.restored == {"context": "my_context", "llm_query": "my_llm_query", "SHOW_VARS": None}
    after = await session.run("context, my_context, callable(llm_query), callable(SHOW_VARS)")
    assert after.value == "('the input', 'THE INPUT', True, True)"
    assert after.report.restored == {}


async def test_the_report_lists_the_users_variables_only(session):
    await session.set("context", "x")
    cell = await session.run("import os\nnumber = 1\n_private = 2\ndef function(): pass")
    assert cell.report.variables == {"number": "int", "function": "function"}
    assert (await session.run("SHOW_VARS()")).value == "{'number': 'int', 'function': 'function'}"


def _peak(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
