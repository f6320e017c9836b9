"""The documented contract of agents: tools, context, history, and what an enforced agent promises."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from agent_parts import cell, said

from rlm import (
    RLM,
    AgentContext,
    AgentRLM,
    ConfigError,
    LMError,
    RecordingError,
    Refuse,
    Replace,
    RLMEnforcementError,
    ScriptedLM,
    create_enforced_agent,
    require_agent_environment,
)
from rlm_kernel.engine import agent_tools

pytestmark = pytest.mark.slow

SOURCE = Path(agent_tools.__file__).with_name("agent_guest.py").read_text("utf-8")
INSTEAD = ast.literal_eval(SOURCE[SOURCE.index("INSTEAD = ") :].removeprefix("INSTEAD = ").partition("\n}\n")[0] + "}")

NAMES = """
found = [context["user_info"]["name"], call_tool("double", number=21), double(4), double.__doc__]
found += [get_agent_context()["agent_id"], sorted(get_agent_context()["tools"]), search_context("alex")[0]["line"]]
add_to_context("seen", [1, 2])
found.append(context["seen"])
found.append([message["role"] for message in history])
FINAL(found)
"""


def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


async def test_the_repl_has_the_documented_names(agent):
    one = agent([cell(NAMES)], agent_context=AgentContext("the-agent"))
    one.register_tool("double", double)
    one.add_context("user_info", {"name": "Alex"})
    answer = await said(one, "What do you have?")
    assert answer == "['Alex', 42, 8, 'Twice the number.', 'the-agent', ['double'], 2, [1, 2], ['user']]"
    assert one.agent_context.context_data["seen"] == [1, 2]


async def test_the_model_reads_what_there_is(agent):
    lm = ScriptedLM([cell("total = 1"), "FINAL(Yes, one.)", "FINAL(Done it is.)"])
    one = agent(lm)
    one.register_tool("double", double)
    one.add_context("user_info", {"name": "Alex"})
    await said(one, "First?")
    await said(one, "Second?")
    opening = str(lm.calls[2].messages)
    for words in ("- `double`: (number: ", "Twice the number.", "`user_info`", "`total`", "User: First?"):
        assert words in opening
    assert "You: Yes, one." in opening


async def test_helpers_of_other_agents_say_what_to_write_instead(agent):
    lines = [f"for name in {list(INSTEAD)}:", "    try:", "        globals()[name]('text')"]
    lines += ["    except NotImplementedError as error:", "        found.append(str(error))"]
    one = agent([cell("\n".join(["found = []", *lines, "FINAL('; '.join(found))"]))])
    says = (f"{name} does not exist here. Write instead: {instead}" for name, instead in INSTEAD.items())
    assert await said(one, "Help.") == "; ".join(says)


async def test_data_and_tools_may_come_with_a_message(agent):
    one = agent([cell("FINAL(context['input'])"), cell("FINAL([context['n'], late(1)])")])
    assert await said(one, "Read.", context="a text") == "a text"
    assert await said(one, "Call.", context={"n": 3}, tools={"late": lambda x: x + 1}) == "[3, 2]"


async def test_a_message_without_data_may_be_answered_at_once(agent):
    lm = ScriptedLM(["FINAL(Hello to you.)"])
    assert await said(agent(lm), "Hello.") == "Hello to you."
    assert len(lm.calls) == 1


async def test_an_answer_before_a_look_at_new_data_is_challenged(agent):
    lm = ScriptedLM(["FINAL(A guess of mine.)", cell("print(context)"), "FINAL(It says a text.)"])
    assert await said(agent(lm), "Read.", context="a text") == "It says a text."


async def test_without_stream_the_answer_is_one_piece(agent):
    one = agent(["FINAL(one two\nthree four)"])
    assert [chunk async for chunk in one.chat("Hello.", stream=False)] == ["one two\nthree four"]


async def test_the_history_has_a_message_of_each_side(agent):
    one = agent(["FINAL(Hello to you.)"])
    await said(one, "Hello.")
    first, second = one.get_conversation_history()
    assert (first["role"], first["content"]) == ("user", "Hello.")
    assert (second["role"], second["content"]) == ("assistant", "Hello to you.")
    assert first["timestamp"] <= second["timestamp"]


async def test_the_host_keeps_the_newest_messages_and_the_kernel_all(agent):
    replies = ["FINAL(answer number one)", "FINAL(answer number two)", cell("FINAL(len(history))")]
    one = agent(replies, agent_context=AgentContext(max_history_size=2))
    for message in ("first", "second", "third"):
        answer = await said(one, message)
    assert answer == "5"
    assert [message["content"] for message in one.get_conversation_history()] == ["third", "5"]


async def test_a_saved_memory_is_plain_json_that_another_agent_takes_up(agent, tmp_path):
    one = agent([cell("context"), "FINAL(Hello to you.)"])
    one.add_context("user_info", {"name": "Alex"})
    one.register_tool("double", double)
    await said(one, "Hello.")
    one.save_context(tmp_path / "memory.json")
    saved = json.loads((tmp_path / "memory.json").read_text())
    assert saved.keys() == {"agent_id", "conversation_history", "context_data", "tools", "metadata"}
    assert saved["tools"] == ["double"]
    other = agent([cell("old = 1"), "FINAL(So it is.)", cell("FINAL([old, context, len(history)])")])
    other.add_context("other", 1)
    await said(other, "Before.")
    other.load_context(tmp_path / "memory.json")
    assert await said(other, "After.") == "[1, {'user_info': {'name': 'Alex'}}, 3]"


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"agent_id": 1}', '{"agent_id": "a", "conversation_history": [3]}', "[" * 10_000],
)
def test_a_file_that_is_no_memory_is_refused(agent, tmp_path, content):
    (tmp_path / "memory.json").write_text(content)
    with pytest.raises(RecordingError, match="is not the memory of an agent"):
        agent([]).load_context(tmp_path / "memory.json")


def test_an_enforced_agent_is_what_it_says():
    assert isinstance(create_enforced_agent(ScriptedLM([])), AgentRLM)
    for wrong in ({"environment": "local"}, {"enable_tools": False}, {"enable_streaming": False}):
        with pytest.raises(RLMEnforcementError):
            create_enforced_agent(ScriptedLM([]), **wrong)
    with pytest.raises(RLMEnforcementError, match="'place': 'docker'"):
        AgentRLM(ScriptedLM([]), environment="docker")


@pytest.mark.parametrize("max_depth", [0, 1, 2])
async def test_each_answer_comes_out_of_a_run_of_the_engine(agent, max_depth):
    lm = ScriptedLM(["A bare reply is no answer.", cell("FINAL(6 * 7)")])
    assert await said(agent(lm, max_depth=max_depth), "What is six times seven?") == "42"
    assert len(lm.calls) == 2


def test_a_function_may_require_the_environment():
    @require_agent_environment
    def made(environment="agent"):
        return environment

    assert made() == made(environment="agent") == "agent"
    with pytest.raises(RLMEnforcementError, match="made needs environment='agent'"):
        made(environment="local")


async def test_a_person_decides_about_its_cells_and_calls_and_not_about_our_own(agent):
    asked = []

    def on_cell(request):
        asked.append(request.code)
        return Refuse("not now") if "bad" in request.code else True

    def on_tool(request):
        asked.append(request.name)
        return Replace(5)

    lm = ScriptedLM([cell("bad = 1"), cell("FINAL(double(1))")])
    one = agent(lm, on_cell=on_cell, on_tool=on_tool)
    one.register_tool("double", double)
    assert await said(one, "Go.") == "5"
    assert asked == ["bad = 1", "FINAL(double(1))", "double"]
    assert "not now" in lm.calls[1].prompt


async def test_errors_raise_and_are_no_answer(agent):
    one = agent([LMError("it is down", backend="scripted", model="m"), "FINAL(Here I am again.)"])
    with pytest.raises(LMError, match="it is down"):
        await said(one, "Hello.")
    assert await said(one, "Hello?") == "Here I am again."


@pytest.mark.parametrize("call", [("", {}), ("  ", {}), (3, {}), ("Hi.", {"context": {"a": object()}})])
async def test_a_wrong_message_is_refused(agent, call):
    message, arguments = call
    with pytest.raises(ConfigError):
        await said(agent([]), message, **arguments)


def test_a_plain_rlm_takes_the_environment_of_agents():
    code = cell("FINAL([search_context('needle')[0]['line'], call_tool('double', 2)])")
    with RLM(ScriptedLM([code]), environment="agent", custom_tools={"double": double}) as rlm:
        assert rlm.config.environment.name == "local"
        assert rlm.completion("hay\nneedle\nhay").response == "[2, 4]"


async def test_the_kernel_may_live_in_another_place(agent, docker_engine):
    one = agent([cell("FINAL(__import__('os').path.exists('/.dockerenv'))")], environment_kwargs={"place": "docker"})
    assert await said(one, "Where are you?") == "True"


def test_an_unknown_argument_is_named_with_the_one_that_was_meant():
    with pytest.raises(ConfigError, match=r"AgentRLM has no argument 'max_iteration'; did you mean 'max_iterations'\?"):
        AgentRLM(ScriptedLM([]), max_iteration=3)
    with pytest.raises(ConfigError, match=r"'custom_tool'; did you mean 'custom_tools'\? Allowed: agent_context, "):
        create_enforced_agent(ScriptedLM([]), custom_tool={})
