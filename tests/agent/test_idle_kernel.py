"""A kernel that was idle when a message failed stays, and the model may change in a conversation."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from agent_parts import cell, said
from loopback import Fails, Hangs

from rlm import AgentRLM
from rlm.logger import RLMLogger
from rlm_kernel.engine.agent_tools import TAKE_MESSAGE
from rlm_kernel.errors import ConfigError, LMError
from rlm_kernel.trajectory.events import CellFinished
from rlm_kernel.trajectory.log.reader import read_log

PID = cell("import os\nprint(os.getpid())")


def pids(log):
    outputs = [cell.result.outputs for cell in read_log(log).trajectory.cells if "getpid" in cell.code]
    return [output["text"] for (output,) in outputs]


async def until_taken(agent, message):
    """The events of a message, until its kernel has taken it."""
    async for event in agent.events(message):
        yield event
        if isinstance(event, CellFinished) and event.result.code == TAKE_MESSAGE:
            yield None


async def released(provider, events):
    async for event in events:
        if event is None:
            provider.release()


async def test_a_kernel_stays_when_the_provider_fails_or_the_model_is_stopped(provider, tmp_path):
    provider.script = [PID, "FINAL(it is a number)", Hangs(), Hangs(then=Fails(401)), PID, "FINAL(it is a number)"]
    logger = RLMLogger(tmp_path)
    one = AgentRLM("openai", {**provider.backend_kwargs, "max_retries": 0}, logger=logger)
    async with one:
        await said(one, "first")
        async with aclosing(until_taken(one, "is stopped")) as events:
            async for event in events:
                if event is None:
                    break
        with pytest.raises(LMError):
            await released(provider, until_taken(one, "fails"))
        await said(one, "last")
    first, second = pids(logger.log_file_path)
    assert first == second


async def test_a_cell_that_was_stopped_leaves_nothing(agent, tmp_path):
    logger = RLMLogger(tmp_path)
    replies = [PID, "FINAL(that is its number)", cell("half = 1\nimport time\ntime.sleep(60)")]
    replies += [cell("import os\nprint(os.getpid(), 'half' in globals())"), "FINAL(nothing is left)"]
    async with agent(replies, logger=logger) as one:
        await said(one, "first")
        async for event in one.events("is stopped"):
            if "sleep" in getattr(event, "code", ""):
                break
        await said(one, "last")
    first, second = pids(logger.log_file_path)
    assert second.split()[1] == "False"
    assert first.strip() != second.split()[0]


async def test_another_model_answers_and_the_record_says_so(provider, tmp_path, monkeypatch):
    provider.script = ["FINAL(it is one)", "FINAL(it is two)", "FINAL(it is three)"]
    logger = RLMLogger(tmp_path)
    async with AgentRLM("openai", provider.backend_kwargs, logger=logger) as one:
        await said(one, "first")
        one.use_model("second-model")
        await said(one, "second")
    usage = read_log(logger.log_file_path).trajectory.spending()
    assert [model for model, _ in usage] == ["loopback-model", "second-model"]
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    async with AgentRLM.resume(logger.log_file_path) as one:
        assert one.model == "second-model"
        assert set(one.usage.model_usage_summaries) == {"loopback-model", "second-model"}
    async with AgentRLM.resume(logger.log_file_path, backend="openai", backend_kwargs=provider.backend_kwargs) as one:
        assert one.model == "loopback-model"


async def test_a_model_without_relatives_stays(agent):
    async with agent(["FINAL(it is one)"]) as one:
        with pytest.raises(ConfigError, match="is not a model that 'scripted' can be asked for"):
            one.use_model("other")
