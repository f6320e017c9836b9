"""Replies are parsed in several threads: the engine's loop, the threads for long replies and those of the notebooks."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator

import pytest

from rlm_kernel.parsing.compiler import Compiler

CODE = f"x = [{', '.join(f'f(a(b(c({n}))))' for n in range(100))}]\n"


@pytest.fixture
def _switching_threads() -> Iterator[None]:
    """Give other threads a turn wherever Python collects garbage, also in the middle of a tree."""

    def give_turn(*_: object) -> None:
        time.sleep(0)

    thresholds = gc.get_threshold()
    gc.callbacks.append(give_turn)
    gc.set_threshold(50)
    yield
    gc.callbacks.remove(give_turn)
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("_switching_threads")
def test_trees_are_made_in_several_threads() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(4):
                assert Compiler().tree(CODE) is not None
        except Exception as error:  # noqa: BLE001 (the test shows it)
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
