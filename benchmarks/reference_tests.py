"""Run the reference's own tests over our public API.

    python benchmarks/reference_tests.py CHECKOUT [PYTEST ARGUMENTS]

CHECKOUT is a checkout of github.com/alexzhang13/rlm. Its tests are copied to a temporary folder and run with this file
as a plugin of pytest. The plugin stands in for what does not exist here: `LocalREPL` runs each piece of code as a turn
of a persistent `RLM`, and a `get_client` that a test has replaced becomes the model of an `RLM`. The end of the report
counts the tests that hold, that differ on purpose (`ON_PURPOSE`), and that fail.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import rlm.core.rlm as core
import rlm.environments
from rlm import RLM, ModelUsageSummary, UsageSummary
from rlm.clients import BaseLM, get_client

ON_PURPOSE = (
    (
        r"does not exist in rlm-kernel|has no attribute '(LMHandler|DockerREPL|IPythonREPL|get_environment)'",
        "the import says what to use instead",
    ),
    (
        r"has no attribute '_\w+'|does not have the attribute|'rlm\.clients\.\w+' has no attribute|'Repl' object has",
        "the test reads or replaces private parts",
    ),
    (
        r"The script has no reply left|QueryError|user refused|test_rlm_query\.py::\S*(error|exception|fail|handler)",
        "a failed sub-call raises in the cell",
    ),
)
"""What a failure says, and the reason of docs/migration.md for the difference."""


class Mocked(BaseLM):
    """The client that a test's own `get_client` returns."""

    backend = "mock"

    def __init__(self, client: Any, name: str) -> None:
        super().__init__(name)
        self._client = client

    def completion(self, prompt: Any) -> str:
        return str(self._client.completion(prompt))

    async def acompletion(self, prompt: Any) -> str:
        return self.completion(prompt)

    def get_usage_summary(self) -> UsageSummary:
        return self._client.get_usage_summary()

    def get_last_usage(self) -> ModelUsageSummary:
        used = self._client.get_last_usage()
        return next(iter(used.model_usage_summaries.values())) if isinstance(used, UsageSummary) else used


class Adapted(RLM):
    """An `RLM` that asks the clients of a test's own `get_client`."""

    def __init__(self, backend: Any = "openai", backend_kwargs: Any = None, *args: Any, **kwargs: Any) -> None:
        if core.get_client is not get_client:
            backend, backend_kwargs = _mocked(backend, backend_kwargs), None
            others = kwargs.get("other_backends") or ()
            settings = kwargs.pop("other_backend_kwargs", None) or [{}] * len(others)
            kwargs["other_backends"] = [_mocked(*pair) for pair in zip(others, settings, strict=True)]
        super().__init__(backend, backend_kwargs, *args, **kwargs)


def _mocked(backend: Any, kwargs: Any) -> Mocked:
    return Mocked(core.get_client(backend, kwargs), str((kwargs or {}).get("model_name", "unknown")))


def pytest_configure() -> None:
    """Put the stand-ins where the tests import them from."""
    os.environ.setdefault("OPENAI_API_KEY", "no-key")
    rlm.RLM = core.RLM = Adapted  # type: ignore[misc]


_outcomes: dict[str, tuple[str, str]] = {}


def pytest_runtest_logreport(report: Any) -> None:
    """Keep the worst outcome of each test."""
    if report.when == "call" or report.outcome != "passed":
        _outcomes[report.nodeid] = report.outcome, report.longreprtext


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Count what holds, what differs on purpose, and what fails."""
    counts: Counter[str] = Counter()
    for node, (outcome, text) in _outcomes.items():
        reason = next((why for pattern, why in ON_PURPOSE if re.search(pattern, f"{node}\n{text}")), None)
        kind = outcome if outcome != "failed" or reason is None else f"differs on purpose: {reason}"
        counts[kind] += 1
        if kind == "failed":
            terminalreporter.write_line(f"FAILS {node.rpartition('tests/')[2]}: {text.splitlines()[-1][:150]}")
    for kind, count in counts.most_common():
        terminalreporter.write_line(f"{count:4}  {kind}")


def main(checkout: str, arguments: list[str]) -> int:
    """Run the tests of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(Path(checkout) / "tests", Path(folder) / "tests")
        sys.path.insert(0, str(Path(__file__).parent))
        # A module that cannot be imported is reported, and the others run.
        given = [arg.replace("tests/", f"{folder}/tests/", 1) for arg in arguments] or [f"{folder}/tests"]
        options = ["-q", "--tb=line", "-p", "reference_tests", "-p", "no:cacheprovider", "--rootdir", folder]
        return int(pytest.main([*options, "--continue-on-collection-errors", *given]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
