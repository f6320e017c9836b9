"""Our side of the benchmark. Started by `overhead.py`; see `sides.py`."""

from __future__ import annotations

from typing import Any

from sides import QUESTION, Complete, Engine, serve

from rlm import RLM

ENVIRONMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "local": ("local", {}),
    "local, pool": ("local", {"pool": 2}),
    "docker": ("docker", {}),
    "docker, relay": ("docker", {"transport": "relay"}),
    "docker, pool": ("docker", {"pool": 2}),
}


def start(environment: str, provider: str, scenario: str) -> Complete:
    """An RLM, which stays open as long as it is used. Children answer in two turns."""
    backend = {"model_name": scenario, "api_key": "loopback", "base_url": provider}
    others: dict[str, Any] = {}
    if scenario.startswith("children"):
        others = {
            "other_backends": ["openai"],
            "other_backend_kwargs": [{**backend, "model_name": "turns-2"}],
            "max_depth": 2,
            "max_concurrent_subcalls": 8,
        }
    rlm = RLM("openai", backend, *ENVIRONMENTS[environment], max_iterations=1000, **others)
    return lambda context: rlm.completion(context, QUESTION).response


if __name__ == "__main__":
    names = ("rlm-kernel", "ipykernel", "jupyter_client", "pyzmq", "openai")
    serve(Engine(start, names, frozenset(ENVIRONMENTS), frozenset(ENVIRONMENTS)))
