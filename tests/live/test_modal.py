"""The suite of kernels, and what the emulator of Modal cannot prove, with a real account of Modal.

    RLM_TEST_MODAL=1 python -m pytest tests/live

It needs Modal's token (`modal token new`), makes about a hundred sandboxes one after another in the App
`rlm-kernel-tests` (or RLM_TEST_MODAL_APP), each for some seconds, and builds three images.
"""

from __future__ import annotations

import os
import time

import pytest
from borrowed_tests import TESTS, borrow_kernel_suite, borrowed

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("RLM_TEST_MODAL") != "1",
        reason="needs an account of Modal, and costs a little: set RLM_TEST_MODAL=1",
    ),
    pytest.mark.timeout(600),
]

globals().update(borrow_kernel_suite())
globals().update(borrowed(TESTS / "modal" / "test_modal_kernel.py"))


async def test_there_is_really_no_network(modal_session):
    async with await modal_session() as session:
        cell = await session.run("import socket\nsocket.create_connection(('1.1.1.1', 443), 5)")
        assert cell.status == "error"
        assert (await session.run("llm_query('still answered')")).value == "'STILL ANSWERED'"


async def test_packages_are_installed(modal_session):
    async with await modal_session(packages=["tomli"]) as session:
        assert (await session.run("import tomli; tomli.loads('a = 1')")).value == "{'a': 1}"


async def test_an_image_of_a_registry_holds_a_kernel(modal_session):
    async with await modal_session(image="python:3.12-slim") as session:
        assert (await session.run("import sys; sys.version_info[:2]")).value == "(3, 12)"


async def test_a_sandbox_that_reaches_its_timeout_is_a_kernel_that_died_and_says_so(modal_session):
    async with await modal_session(timeout=30) as session:
        cell = await session.run("import time; time.sleep(300)")
        assert (cell.status, cell.kernel_alive) == ("died", False)
        assert "reached its timeout of 30 s" in session.why_it_died


async def test_how_long_it_takes(modal_session, capsys):
    started = time.perf_counter()
    async with await modal_session() as session:
        ready = time.perf_counter() - started
        cells = sorted([(await session.run("1 + 1")).seconds for _ in range(20)])
        queries = await session.run("for _ in range(20): llm_query('x')")
        started = time.perf_counter()
        await session.set("context", os.urandom(10_000_000).hex())
        context = time.perf_counter() - started
    with capsys.disabled():
        print(
            f"\nready {ready:.2f} s, a cell {cells[10] * 1000:.0f} ms, llm_query {queries.seconds / 20 * 1000:.0f} ms, "
            f"20 MB of context {context:.1f} s"
        )
