"""Two hundred kernels, one after the other, leave nothing in any place."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.anywhere, pytest.mark.full, pytest.mark.timeout(1200)]
KERNELS = 200
AT_ONCE = 4
MADE_ONCE = 5
"""Descriptors that the process keeps."""


@pytest.fixture
def folder(monkeypatch):
    """For temporary files, with a path that is short enough for sockets."""
    made = Path(tempfile.mkdtemp(prefix="left-"))
    monkeypatch.setenv("TMPDIR", str(made))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield made
    shutil.rmtree(made)


def processes():
    return {child.pid for child in psutil.Process().children(recursive=True)}


async def test_two_hundred_kernels_leave_nothing(open_session, folder):
    async def use(gate):
        async with gate, await open_session({"env": {"TMPDIR": str(folder)}}) as session:
            assert (await session.run("6 * 7")).value == "42"

    gate = asyncio.Semaphore(AT_ONCE)
    await use(gate)  # what is made once stays
    before, files = processes(), psutil.Process().num_fds()
    await asyncio.gather(*(use(gate) for _ in range(KERNELS)))
    async with asyncio.timeout(10):
        while [*folder.glob("rlm-*")] or not processes() <= before:
            await asyncio.sleep(0.1)
    assert psutil.Process().num_fds() <= files + MADE_ONCE
