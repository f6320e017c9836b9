"""A kernel that was idle when a message failed stays, and the model may change in a conversation."""

from __future__ import annotations

import asyncio

import pytest
from agent_parts import cell, said
from loopback import Fails, Hangs

from rlm import AgentRLM
from rlm.logger import RLMLogger
from rlm_kernel.errors import ConfigError, LMError
from rlm_kernel.trajectory.log.reader import read_log

PID = cell("import os\nprint(os.getpid())")


def pids(log):
    outputs = [cell.result.outputs for cell in read_log(log).trajectory.cells if "getpid" in cell.code]
    return [output["text"] for (output,) in outputs]


async def test_a_kernel_stays_when_the_provider_fails_or_the_model_is_stopped(provider, tmp_path):
    provider.script = [PID, "FINAL(that is its number)", Fails(401), Hangs(), PID, "FINAL(that is its number)"]
    logger = RLMLogger(tmp_path)
    one = AgentRLM("openai", {**provider.backend_kwargs, "max_retries": 0}, logger=logger)
    async with one:
        await said(one, "first")
        with pytest.raises(LMError):
            await said(one, "fails")
        stopped = asyncio.ensure_future(said(one, "is stopped"))
        await asyncio.to_thread(provider.wait_for_requests, 4)
        stopped.cancel()
        await asyncio.wait({stopped})
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


async def test_another_model_answers_and_the_record_says_so(provider, tmp_path):
    provider.script = ["FINAL(it is one)", "FINAL(it is two)", "FINAL(it is three)"]
    logger = RLMLogger(tmp_path)
    async with AgentRLM("openai", provider.backend_kwargs, logger=logger) as one:
        await said(one, "first")
        one.use_model("second-model")
        await said(one, "second")
    usage = read_log(logger.log_file_path).trajectory.spending()
    assert [model for model, _ in usage] == ["loopback-model", "second-model"]
    async with AgentRLM.resume(logger.log_file_path) as one:
        assert one.model == "second-model"
        assert set(one.usage.model_usage_summaries) == {"loopback-model", "second-model"}
    async with AgentRLM.resume(logger.log_file_path, backend="openai", backend_kwargs=provider.backend_kwargs) as one:
        assert one.model == "loopback-model"


async def test_a_model_without_relatives_stays(agent):
    async with agent(["FINAL(it is one)"]) as one:
        with pytest.raises(ConfigError, match="is not a model that 'scripted' can be asked for"):
            one.use_model("other")
