"""Custom tools: functions on the host, code and values in the kernel."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from concurrent.futures import Future

import pytest

from rlm import RLM, ConfigError, ScriptedLM
from rlm_kernel.engine.tools import tools_of
from rlm_kernel.trajectory.events import ToolCalled
from rlm_kernel.types import ToolCall


class OwnError(Exception):
    """Not built in."""


def fetch_weather(city: str, unit: str = "C", *, days: int = 1) -> str:
    """Fetch weather data for a city.

    More about it.
    """
    if city == "Nowhere":
        raise ValueError("no such city")
    if city == "Own":
        raise OwnError("special")
    return f"{city}: sunny, {unit}, {days}, {threading.current_thread() is threading.main_thread()}"


async def slowly(x):
    return {"doubled": x * 2}


TOOLS = {
    "fetch_weather": {"tool": fetch_weather, "description": "Fetch current weather data for a city name"},
    "slowly": slowly,
    "helper": "def helper(x):\n    return x * 2",
    "API_KEY": "your-api-key",
    "CONFIG": {"api_url": "https://api.example.com", "timeout": 30},
    "total": sum,
}


@pytest.fixture
def cell(run, events):
    """Run one cell with the tools and give back what it printed."""

    async def in_cell(code, tools=TOOLS):
        lm = ScriptedLM([f"```repl\n{code}\n```", "FINAL(x)"])
        await run(lm, tools=tools_of(tools))
        return lm.calls[1].prompt

    return in_cell


@pytest.mark.everywhere
async def test_a_function_is_called_on_the_host(cell, events):
    assert "Tokyo: sunny, F, 3, False" in await cell("fetch_weather('Tokyo', 'F', days=3)")
    (called,) = [event for event in events if isinstance(event, ToolCalled)]
    assert (called.call.tool, called.call.args, called.call.kwargs) == ("fetch_weather", ("Tokyo", "F"), {"days": 3})


async def test_an_asynchronous_function_and_a_builtin_work_too(cell):
    assert "({'doubled': 14}, 6)" in await cell("slowly(7), total([1, 2, 3])")


@pytest.mark.anywhere
async def test_code_and_values_are_there(cell):
    assert "(42, 'your-api-key', 30)" in await cell("helper(21), API_KEY, CONFIG['timeout']")


@pytest.mark.anywhere
async def test_what_a_tool_raises_is_raised_in_the_cell(cell):
    told = await cell(
        "for city in ('Nowhere', 'Own'):\n"
        "    try: fetch_weather(city)\n"
        "    except Exception as error: print(type(error).__name__, '|', error)"
    )
    assert "ValueError | no such city" in told
    assert "ToolError | OwnError: special" in told


async def test_wrong_arguments_are_a_type_error(cell):
    assert "TypeError" in await cell("fetch_weather()")
    assert "values that JSON can hold" in await cell("fetch_weather(object())")


async def test_a_result_that_cannot_travel_says_so(cell):
    assert "returned set, which cannot travel as JSON" in await cell("tool()", {"tool": lambda: {1, 2}})


class Doubles:
    """Called like a function."""

    async def __call__(self, x):
        return x * 2


async def test_an_object_with_an_asynchronous_call_is_awaited(cell):
    assert "14" in await cell("tool(7)", {"tool": Doubles()})


def stop():
    return next(iter(()))


def leave():
    sys.exit(2)


def give_up():
    future = Future()
    future.cancel()
    return future.result()


async def give_up_asynchronously():
    raise asyncio.CancelledError


async def close_asynchronously():
    raise GeneratorExit


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        (stop, "StopIteration"),
        (leave, "SystemExit"),
        (give_up, "CancelledError"),
        (give_up_asynchronously, "CancelledError"),
        (close_asynchronously, "GeneratorExit"),
    ],
)
async def test_whatever_a_tool_raises_is_an_answer(tool, name):
    answer = await tools_of({"tool": tool})[0].call(ToolCall("q1", "tool", (), {}))
    assert json.loads(answer.error)[0] == name


async def test_a_call_that_is_cancelled_ends_with_its_tool():
    started = asyncio.Event()

    async def wait():
        started.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(tools_of({"tool": wait})[0].call(ToolCall("q1", "tool", (), {})))
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_help_shows_signature_and_docstring(cell):
    told = await cell("help(fetch_weather)")
    assert "fetch_weather(city: str, unit: str = 'C', *, days: int = 1)" in told
    assert "More about it." in told


async def test_a_tool_that_is_overwritten_is_put_back(cell):
    told = await cell("fetch_weather = None")
    assert "`fetch_weather` belongs to the notebook" in told


@pytest.mark.anywhere
async def test_tools_may_be_called_from_threads(cell):
    told = await cell(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool: r = list(pool.map(lambda i: total([i, 1]), range(100)))\n"
        "r == list(range(1, 101))"
    )
    assert "True" in told


async def test_the_prompt_lists_them_in_the_documented_form(run):
    lm = ScriptedLM(["```repl\nFINAL(1)\n```"])
    await run(lm, tools=tools_of(TOOLS), system_prompt="Own prompt with {braces}.")
    system = lm.calls[0].messages[0]["content"]
    assert system.startswith("Own prompt with {braces}.\n\nCustom tools and data available in the REPL:\n")
    assert "- `fetch_weather`: Fetch current weather data for a city name\n" in system
    assert "- `CONFIG`: a dict of length 2" in system


async def test_children_have_the_tools_they_are_given(run):
    root = ScriptedLM(["```repl\nFINAL(rlm_query('go', model='sub'))\n```"] * 2, model="root")
    child = "```repl\nFINAL('total' in globals())\n```"
    tools = tools_of({"total": sum})
    given = await run(root, others=(ScriptedLM([child], model="sub"),), max_depth=2, tools=tools, sub_tools=tools)
    none = await run(root, others=(ScriptedLM([child], model="sub"),), max_depth=2, tools=tools, sub_tools=())
    assert (given.response, none.response) == ("True", "False")


@pytest.mark.anywhere
async def test_tools_are_there_again_after_the_kernel_died(run):
    lm = ScriptedLM(["```repl\nimport os; os._exit(1)\n```", "```repl\nFINAL(total([helper(1), 40]))\n```"])
    assert (await run(lm, tools=tools_of(TOOLS))).response == "42"


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ({"llm_query": len}, ["llm_query", "Reserved names"]),
        ({"context": "x"}, ["context", "Reserved names"]),
        ({"not a name": 1}, ["not a name", "Python name"]),
        ({"class": 1}, ["class", "Python name"]),
        ({3: 1}, ["3", "Python name"]),
        ({"lock": threading.Lock()}, ["lock", "cannot be sent"]),
        ({"f": {"tool": len, "description": 5}}, ["f", "description"]),
        ([("f", len)], ["custom_tools", "dict"]),
    ],
)
def test_a_tool_that_cannot_be_is_refused_by_its_key(tools, words):
    with pytest.raises(ConfigError) as raised:
        RLM(ScriptedLM([]), custom_tools=tools)
    assert [word for word in words if word not in str(raised.value)] == []


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("helper", "def helper(x):\n    return x", "code"),
        ("helper", "helper = 5", "code"),
        ("helper", "helper: int = 5", "code"),
        ("helper", "import math as helper", "code"),
        ("os", "import os.path", "code"),
        ("helper", "other, (helper, *rest) = 1, (2, 3)", "code"),
        ("helper", "try:\n    from math import helper\nexcept ImportError:\n    def helper(): return 1", "code"),
        ("helper", "if True:\n    helper = 5", "code"),
        ("helper", "def other(x):\n    helper = 5", "value"),
        ("helper", "other = [helper for helper in ()]", "value"),
        ("helper", "helper.part = helper[0] = 5", "value"),
        ("helper", "helper += 5", "value"),
        ("helper", "-" * 20_000 + "\nA title", "value"),
        ("helper", "def other(x):\n    return x", "value"),
        ("helper", "just some words", "value"),
        ("helper", "helper: int", "value"),
        ("sun", "sun", "value"),
        ("f", print, "function"),
        ("n", 5, "value"),
        ("d", {"tool": 5, "other": 6}, "value"),
    ],
)
def test_a_string_is_code_only_if_it_binds_the_tools_own_name(name, content, kind):
    (tool,) = tools_of({name: content})
    assert tool.kind == kind
