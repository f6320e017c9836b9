"""The side of `dspy.RLM`, run by an interpreter in which `dspy` is installed.

Started by `overhead.py --dspy`; see `sides.py`. Its interpreter is a plain subprocess (`LocalInterpreter`).
"""

from __future__ import annotations

import dspy
from dspy.primitives.local_interpreter import LocalInterpreter
from sides import QUESTION, Complete, Engine, serve


def start(_: str, provider: str, scenario: str) -> Complete:
    """A module with a model of its own, without a cache."""
    model = f"openai/dspy-{scenario}"
    lm = dspy.LM(model, api_base=provider, api_key="loopback", cache=False, num_retries=0)
    rlm = dspy.RLM(
        "context, query -> output",
        max_iters=1000,
        max_llm_calls=1_000_000,
        interpreter_factory=LocalInterpreter,
    )

    def complete(context: str) -> str:
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
            return str(rlm(context=context, query=QUESTION).output)

    return complete


if __name__ == "__main__":
    serve(Engine(start, ("dspy", "litellm", "openai"), at_once=frozenset({"subprocess"})))
