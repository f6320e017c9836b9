"""What the progress bar of a batch shows."""

from __future__ import annotations

import io
import time

from rich.console import Console

from rlm_kernel.batch.progress import BatchProgress
from rlm_kernel.batch.results import TaskResult
from rlm_kernel.types import Usage, UsageMeter


def result(name: str, cost: float | None = 0.25, error: str | None = None) -> TaskResult:
    meter = UsageMeter()
    meter.add("model", Usage(1, 1, cost=cost))
    return TaskResult(name, error=error, usage=meter.summary())


def shown(bar: BatchProgress) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(bar)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_it_shows_what_is_done_the_rate_what_failed_the_cost_and_what_is_left() -> None:
    with BatchProgress(4) as bar:
        time.sleep(0.05)
        bar.add(result("a"))
        bar.add(result("b", error="LMError: down"))

        assert "2/4" in shown(bar)
        assert "/s 1 failed, $0.50" in shown(bar)
        assert "left 0:00:0" in shown(bar)


def test_results_of_an_earlier_call_count_for_the_cost_and_not_for_the_rate() -> None:
    with BatchProgress(1000) as bar:
        for number in range(900):
            bar.add(result(str(number)), is_known=True)
        assert "900/1000" in shown(bar)
        assert "$225.00" in shown(bar)
        assert "/s" not in shown(bar)
        time.sleep(0.05)
        bar.add(result("new"))
        rate = float(shown(bar).split("/s")[0].split()[-1])

    assert rate < 900


def test_the_last_line_has_the_rate_of_the_whole_batch_the_time_and_the_cost() -> None:
    with BatchProgress(4) as bar:
        bar.add(result("old"), is_known=True)
        time.sleep(0.05)
        bar.add(result("a"))
        bar.add(result("b"))
    text = shown(bar)

    assert 1 < float(text.split("/s")[0].split()[-1]) <= 40
    assert "$0.75 0:00:00" in text


def test_a_narrow_terminal_shortens_only_the_bar() -> None:
    with BatchProgress(10_000) as bar:
        bar.add(result("a", error="LMError: down"))
        console = Console(file=io.StringIO(), width=64)
        console.print(bar)

    assert "…" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_cost_that_is_not_known_is_not_shown_as_a_number() -> None:
    with BatchProgress(2) as bar:
        bar.add(result("a"))
        bar.add(result("b", cost=None))

        assert "cost unknown" in shown(bar)
