"""Who may have a kernel: never more than the bound, and never a tree that waits for ever."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm import RLM, ConfigError, ScriptedLM
from rlm_kernel.engine import kernel_slots
from rlm_kernel.engine.kernel_slots import KernelSlots, default_max_kernels, needed

TREES = st.recursive(st.just([]), lambda below: st.lists(below, max_size=5), max_leaves=60)
"""A run as the list of its children."""


def depth(tree):
    return 1 + max(map(depth, tree), default=0)


def size(tree):
    return 1 + sum(map(size, tree))


@settings(max_examples=300)
@given(tree=TREES, spare_levels=st.integers(0, 2), spare=st.integers(0, 4), shuffle=st.randoms(use_true_random=False))
def test_every_tree_ends_within_its_bound(tree, spare_levels, spare, shuffle):
    levels = depth(tree) + spare_levels
    limit = needed(levels, 0) + spare
    ended, most = [], []

    async def run(node, level, turns):
        for _ in range(shuffle.randrange(4)):
            await asyncio.sleep(0)
        most.append(turns.in_use)
        await asyncio.gather(*(child(below, level + 1, turns) for below in node))
        ended.append(level)

    async def child(node, level, turns):
        async with turns.turn(level):
            await run(node, level, turns)

    async def whole():
        await asyncio.wait_for(run(tree, 0, turns := KernelSlots(limit, levels - 1)), 30)
        assert turns.in_use == 1

    asyncio.run(whole())
    assert len(ended) == size(tree)
    assert max(most) <= limit


async def test_who_waits_and_is_cancelled_takes_no_place():
    turns = KernelSlots(2, 1)

    async def child(entered):
        async with turns.turn(1):
            entered.set()
            await asyncio.sleep(0.01)

    events = [asyncio.Event() for _ in range(3)]
    tasks = [asyncio.create_task(child(event)) for event in events]
    await events[0].wait()
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert [event.is_set() for event in events] == [True, False, True]
    assert turns.in_use == 1


@pytest.mark.parametrize(("memory", "limit"), [(0, 4), (3_000_000_000, 15), (10**12, 32)])
def test_the_default_follows_the_free_memory(monkeypatch, memory, limit):
    monkeypatch.setattr(kernel_slots, "available_memory", lambda: memory)
    assert default_max_kernels(4, 0) == limit


def test_a_container_has_the_memory_of_its_control_group(monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_slots, "_CGROUP", tmp_path)
    machine = kernel_slots.available_memory()
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert kernel_slots.available_memory() == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert kernel_slots.available_memory() > machine // 2


def test_too_few_kernels_for_the_levels_are_refused():
    with pytest.raises(ConfigError, match="max_kernels=3 is too few: on 4 levels.*Give 4 or more"):
        RLM(ScriptedLM("x"), max_depth=4, max_kernels=3)
    assert RLM(ScriptedLM("x"), max_depth=4, max_kernels=4).config.levels == 4


def test_the_kernels_of_a_pool_count():
    with pytest.raises(ConfigError, match="the pool keeps 3 that wait.*Give 5 or more"):
        RLM(ScriptedLM("x"), max_depth=2, max_kernels=4, environment_kwargs={"pool": 3})


@pytest.mark.parametrize("wrong", [0, -1, True, 2.5, "many"])
def test_max_kernels_is_a_whole_number(wrong):
    with pytest.raises(ConfigError, match="max_kernels must be a whole number"):
        RLM(ScriptedLM("x"), max_kernels=wrong)
