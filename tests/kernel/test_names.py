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


async def test_what_a_model_sees_of_the_guest_is_of_one_module(session):
    await session.run("import pickle, rlm_guest")
    classes = "rlm_guest.QueryError, rlm_guest.FailedQuery, rlm_guest.ToolError, rlm_guest.Budget"
    functions = "llm_query, arlm_query_batched, FINAL, FINAL_VAR, SHOW_VARS, exit, input, budget"
    assert (await session.run(f"{{made.__module__ for made in ({classes}, {functions})}}")).value == "{'rlm_guest'}"
    assert (await session.run("b'crlm_guest\\nQueryError' in pickle.dumps(rlm_guest.QueryError(), 0)")).value == "True"
    assert "File rlm_guest.py:" in (await session.run("llm_query(3)")).error.traceback
