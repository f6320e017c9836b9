"""The suite of kernels with a real account of Prime, Daytona or E2B, which nobody has run yet.

    RLM_TEST_CLOUD=prime python -m pytest tests/live/test_other_clouds.py

It needs the cloud's key (PRIME_API_KEY, DAYTONA_API_KEY or E2B_API_KEY), and makes about a hundred sandboxes one after
another.
"""

from __future__ import annotations

import os

import pytest
from borrowed_tests import borrow_kernel_suite

if os.environ.get("RLM_TEST_CLOUD") not in {"prime", "daytona", "e2b"}:
    pytest.skip("needs an account, and costs a little: set RLM_TEST_CLOUD", allow_module_level=True)
pytestmark = pytest.mark.timeout(900)

globals().update(borrow_kernel_suite())


async def test_there_is_really_no_network(open_session):
    async with await open_session() as session:
        cell = await session.run("import socket\nsocket.create_connection(('1.1.1.1', 443), 5)")
        assert cell.status == "error"
        assert (await session.run("llm_query('still answered')")).value == "'STILL ANSWERED'"


async def test_packages_are_installed(open_session):
    async with await open_session({"packages": ["tomli"]}) as session:
        assert (await session.run("import tomli; tomli.loads('a = 1')")).value == "{'a': 1}"
