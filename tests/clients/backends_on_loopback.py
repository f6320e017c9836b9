"""How each backend is pointed at the loopback provider: what the tests over all backends are given."""

from __future__ import annotations

import importlib.util
import sys

import pytest
from loopback import MODEL

from rlm_kernel.clients.backends import BACKENDS
from rlm_kernel.clients.registry import build

KEY = "sk-secret-0123456789abcdef"
"""Seen by the provider, and by nobody else."""

MODELS = {"litellm": f"openai/{MODEL}", "portkey": f"@openai/{MODEL}"}
REMOTE = [name for name, backend in BACKENDS.items() if backend.remote]


def installed(backend):
    package = BACKENDS[backend].package
    return package is None or importlib.util.find_spec(package) is not None


def each_backend():
    """The remote backends; those of an extra that is not installed are skipped."""
    return [pytest.param(name, marks=marks(name)) for name in REMOTE]


def marks(backend):
    if not installed(backend):
        return [pytest.mark.skip(reason=f"the extra {backend!r} is not installed")]
    # litellm's own, when it builds its types and its replies.
    warnings = ("ignore::DeprecationWarning", "ignore:Item '.*' on TypedDict:UserWarning")
    return [pytest.mark.filterwarnings(warning) for warning in warnings] if backend == "litellm" else []


def client_of(backend, provider, /, **given):
    """A client of the backend that asks the provider."""
    asked = {"model_name": MODELS.get(backend, MODEL), "api_key": KEY, "base_url": provider.base_url, "timeout": 20}
    return build(backend, {**asked, **given}, {})


async def closed(lm):
    """Close it; the connections of litellm belong to the process and would be reported as left open."""
    await lm.close()
    if "litellm" in sys.modules:
        await sys.modules["litellm"].close_litellm_async_clients()
