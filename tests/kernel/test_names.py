"""The names that are there before the host gives any."""

from __future__ import annotations

import pytest

from rlm_kernel.kernel.guest.names import RESERVED

pytestmark = pytest.mark.anywhere


async def test_history_is_an_empty_list_before_there_is_one(session):
    assert (await session.run("history")).value == "[]"
    await session.set("history", [{"role": "user", "content": "x"}])
    assert (await session.run("len(history)")).value == "1"


async def test_every_reserved_name_but_the_context_is_there_from_the_start(session):
    cell = await session.run(f"sorted(name for name in {sorted(RESERVED)} if name not in globals())")
    assert cell.value == "['context']"


async def test_no_reserved_name_counts_as_a_variable(session):
    assert (await session.run("x = 1")).report.variables == {"x": "int"}
