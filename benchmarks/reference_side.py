"""The reference's side of the benchmark, run by the interpreter in which the distribution `rlms` is installed.

Started by `overhead.py --reference`; see `sides.py`.
"""

from __future__ import annotations

from typing import Any

from sides import QUESTION, Complete, Engine, serve

from rlm import RLM

ENVIRONMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "local": ("local", {}),
    "ipython": ("ipython", {"kernel_mode": "in_process"}),
    "kernel": ("ipython", {"kernel_mode": "subprocess"}),
    "docker": ("docker", {"image": "rlm-bench-reference"}),
}


def start(environment: str, provider: str, scenario: str) -> Complete:
    """An RLM as its users have it: it builds its clients in each completion."""
    backend = {"model_name": scenario, "api_key": "loopback", "base_url": provider}
    others: dict[str, Any] = {}
    if scenario.startswith("children"):
        child = {**backend, "model_name": "turns-2"}
        others = {"other_backends": ["openai"], "other_backend_kwargs": [child], "max_depth": 2}
    name, options = ENVIRONMENTS[environment]
    rlm = RLM("openai", backend, name, options, max_iterations=1000, **others)
    return lambda context: rlm.completion(context, QUESTION).response


if __name__ == "__main__":
    names = ("rlms", "ipykernel", "jupyter_client", "pyzmq", "openai")
    serve(Engine(start, names, at_once=frozenset({"kernel", "docker"})))  # `exec` in threads mixes up their output
