"""The reference's side of the overhead benchmark, run by the interpreter in which the distribution `rlms` is installed.

Started by `overhead.py --reference`; see `sides.py`. It uses the reference as its users do: an environment object for
the parts, `RLM.completion` for the whole.
"""

from __future__ import annotations

import json
import time
from functools import cache
from typing import Any
from unittest.mock import patch

from rlm.clients import get_client
from rlm.clients.base_lm import BaseLM
from rlm.core.lm_handler import LMHandler
from rlm.core.types import ModelUsageSummary, UsageSummary
from rlm.environments import BaseEnv, get_environment
from sides import (
    BATCH_CELL,
    CONTEXT,
    EMPTY_CELL,
    FIRST_CELL,
    LENGTH_CELL,
    MOCK_ANSWER,
    QUERIES_CELL,
    QUESTION,
    Round,
    Samples,
    serve,
)

from rlm import RLM

ENVIRONMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "local": ("local", {}),
    "ipython": ("ipython", {"kernel_mode": "in_process"}),
    "kernel": ("ipython", {"kernel_mode": "subprocess"}),
    "docker": ("docker", {"image": "rlm-bench-reference"}),
}


class InstantLM(BaseLM):
    """A model that answers at once."""

    def completion(self, prompt: str | dict[str, Any]) -> str:  # noqa: ARG002
        """The same answer to everything."""
        return MOCK_ANSWER

    async def acompletion(self, prompt: str | dict[str, Any]) -> str:  # noqa: ARG002
        """The same answer to everything."""
        return MOCK_ANSWER

    def get_usage_summary(self) -> UsageSummary:
        """One call of one token."""
        return UsageSummary({self.model_name: self.get_last_usage()})

    def get_last_usage(self) -> ModelUsageSummary:
        """One call of one token."""
        return ModelUsageSummary(1, 1, 1)


def measure(asked: Round) -> Samples:
    """One round: the parts of the engine, and then the whole through the public API."""
    with LMHandler(InstantLM("instant")) as handler:
        parts = {**_start_and_close(asked, handler), **_live(asked, handler)}
    return {**parts, **_completions(asked)}


def _open(asked: Round, handler: LMHandler) -> BaseEnv:
    name, options = ENVIRONMENTS[asked.environment]
    return get_environment(name, {**options, "lm_handler_address": handler.address})


def _start_and_close(asked: Round, handler: LMHandler) -> Samples:
    began = time.perf_counter()
    env = _open(asked, handler)
    env.execute_code(FIRST_CELL)
    ready = time.perf_counter()
    env.cleanup()
    return {"ready": [ready - began], "close": [time.perf_counter() - ready]}


def _live(asked: Round, handler: LMHandler) -> Samples:
    env = _open(asked, handler)
    try:
        samples = {
            "cell": [_seconds(env, EMPTY_CELL) for _ in range(asked.cells)],
            "query": _printed(env, QUERIES_CELL.format(times=asked.queries)),
            "batch": _printed(env, BATCH_CELL.format(times=asked.batches, prompts=asked.prompts)),
        }
        for name, text in asked.contexts():
            began = time.perf_counter()
            env.load_context(text)
            assert _printed(env, LENGTH_CELL) == len(text)
            samples[name] = [time.perf_counter() - began]
        return samples
    finally:
        env.cleanup()


def _seconds(env: BaseEnv, code: str) -> float:
    began = time.perf_counter()
    env.execute_code(code)
    return time.perf_counter() - began


def _printed(env: BaseEnv, code: str) -> Any:
    result = env.execute_code(code)
    assert not result.stderr, result.stderr
    return json.loads(result.stdout)


def _completions(asked: Round) -> Samples:
    """It builds two clients of the model in each completion; for the others they are kept, as ours are."""
    first = _complete(asked, 1)
    kept = cache(lambda backend, items: get_client(backend, dict(items)))
    with patch("rlm.core.rlm.get_client", lambda backend, kwargs: kept(backend, tuple(kwargs.items()))):
        _, *others = _complete(asked, 1 + asked.completions)
    return {"first completion": first, "completion": others}


def _complete(asked: Round, times: int) -> list[float]:
    name, options = ENVIRONMENTS[asked.environment]
    began = time.perf_counter()
    rlm = RLM("openai", asked.backend_kwargs, name, options)
    seconds = []
    for _ in range(times):
        assert rlm.completion(CONTEXT, QUESTION).response == str(len(CONTEXT))
        began, before = time.perf_counter(), began
        seconds.append(began - before)
    return seconds


if __name__ == "__main__":
    serve(measure, ["rlms", "ipykernel", "jupyter_client", "pyzmq", "openai"])
