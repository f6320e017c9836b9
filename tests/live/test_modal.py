"""The suite of kernels, and what the emulator of Modal cannot prove, with a real account of Modal.

    RLM_TEST_MODAL=1 python -m pytest tests/live

It needs Modal's token (`modal token new`), makes about a hundred sandboxes one after another in the App
`rlm-kernel-tests` (or RLM_TEST_MODAL_APP), each for some seconds, and builds three images.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("RLM_TEST_MODAL") != "1",
        reason="needs an account of Modal, and costs a little: set RLM_TEST_MODAL=1",
    ),
    pytest.mark.timeout(600),
]

TESTS = Path(__file__).parents[1]
FIXTURES = {"session", "echo", "open_session", "modal_session"}
ON_A_SHORT_WAY = {"test_a_question_that_is_sent_again_is_asked_once"}
"""It counts what is sent in a time in which little comes from far away."""


def borrowed(file: Path):
    """The tests of another file that need no more than a session, whatever holds it."""
    spec = importlib.util.spec_from_file_location(f"live_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, function in inspect.getmembers(module, inspect.isfunction):
        marks = getattr(function, "pytestmark", [])
        given = {argument for mark in marks if mark.name == "parametrize" for argument in names(mark.args[0])}
        needed = set(inspect.signature(function).parameters) - given
        if name.startswith("test_") and needed and needed <= FIXTURES and name not in ON_A_SHORT_WAY:
            yield name, function


def names(argument):
    return argument.replace(" ", "").split(",") if isinstance(argument, str) else argument


for kind in ("answers", "cells", "context", "queries"):
    globals().update(borrowed(TESTS / "kernel" / f"test_{kind}.py"))
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
