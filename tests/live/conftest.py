"""What the tests against real accounts need: the network and the tokens that all other tests must not have."""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path

import pytest

from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment


# These two stand in for the guards of the same names in tests/conftest.py.
@pytest.fixture(scope="session", autouse=True)
def _no_outside_network():
    """The way outside is open."""


@pytest.fixture(scope="session", autouse=True)
def _no_keys():
    """The tokens stay."""


@pytest.fixture(autouse=True)
def _alone():
    if "guarded" in socket.socket.connect.__qualname__:
        pytest.skip("other tests of this process closed the way outside: run tests/live on its own")


@pytest.fixture
async def echo():
    return kernel_suite().Echo()


def kernel_suite():
    spec = importlib.util.spec_from_file_location("kernel_suite", Path(__file__).parents[1] / "kernel" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def open_session(echo):
    """Opens a session in a real sandbox."""
    place = os.environ.get("RLM_TEST_CLOUD", "modal")
    fixed = {
        "modal": {"app_name": os.environ.get("RLM_TEST_MODAL_APP", "rlm-kernel-tests"), "timeout": 600},
        "prime": {"timeout_minutes": 15},
        "daytona": {"timeout": 900},
        "e2b": {"timeout": 900},
    }[place]

    def opened(options=None, on_output=None):
        return Session.open(environment(place, {**fixed, **(options or {})}), echo, on_output)

    return opened


@pytest.fixture
def modal_session(open_session):
    """The same, as the tests of the emulated sandboxes call it."""
    return lambda **options: open_session(options)


@pytest.fixture
async def session(open_session):
    async with await open_session() as live:
        yield live
