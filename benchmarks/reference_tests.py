"""Run the reference's own tests over our public API.

    python benchmarks/reference_tests.py CHECKOUT [PYTEST ARGUMENTS]

CHECKOUT is a checkout of github.com/alexzhang13/rlm. Its tests are copied to a temporary folder and run with this file
as a plugin of pytest. A `get_client` that a test has replaced becomes the model of an `RLM`. The report counts the
tests that hold, that differ on purpose (`reference_differences.toml`: the row of docs/migration.md), and that fail.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from reference_differences import Report, declared

import rlm
import rlm.core.rlm as core
from rlm import RLM, ModelUsageSummary, UsageSummary
from rlm.clients import BaseLM, get_client
from rlm_kernel._async import Job


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


class Kept:
    """What tests read of the private `_persistent_env` of an `RLM`: its kernel."""

    def __init__(self, repl: Any) -> None:
        self._repl = repl
        self.locals = self

    def get_context_count(self) -> int:
        return int(self._repl.contexts)

    get_history_count = get_context_count

    def __contains__(self, name: str) -> bool:
        return self._report(name).final is not None

    def __getitem__(self, name: str) -> Any:
        report = self._report(name)
        return report.final if report.final_json is None else json.loads(report.final_json)

    get = __getitem__

    def _report(self, name: str) -> Any:
        return Job(self._repl.read(name)).wait()


class Adapted(RLM):
    """An `RLM` that asks the clients of a test's own `get_client`."""

    def __init__(self, backend: Any = "openai", backend_kwargs: Any = None, *args: Any, **kwargs: Any) -> None:
        if core.get_client is not get_client:
            backend, backend_kwargs = _mocked(backend, backend_kwargs), None
            others = kwargs.get("other_backends") or ()
            settings = kwargs.pop("other_backend_kwargs", None) or [{}] * len(others)
            kwargs["other_backends"] = [_mocked(*pair) for pair in zip(others, settings, strict=True)]
        super().__init__(backend, backend_kwargs, *args, **kwargs)
        self.__dict__["_kept"] = (None, None)

    @property
    def _persistent_env(self) -> Kept | None:
        """The same object as long as it is the same kernel."""
        session = None if self._repl is None else self._repl._session
        if self.__dict__["_kept"][0] is not session:
            self.__dict__["_kept"] = session, None if session is None else Kept(self._repl)
        return self.__dict__["_kept"][1]


def _mocked(backend: Any, kwargs: Any) -> Mocked:
    return Mocked(core.get_client(backend, kwargs), str((kwargs or {}).get("model_name", "unknown")))


def pytest_configure() -> None:
    """Put the stand-ins where the tests import them from."""
    declared()  # an anchor that does not exist is an error before any test runs
    os.environ.setdefault("OPENAI_API_KEY", "no-key")
    sys.modules["portkey_ai"] = ModuleType("portkey_ai")  # tests skip without it, and the backend does not need it
    rlm.RLM = core.RLM = Adapted  # type: ignore[misc]


_outcomes: dict[str, tuple[str, str]] = {}


def pytest_runtest_logreport(report: Any) -> None:
    """Keep the worst outcome of each test."""
    if report.when == "call" or report.outcome != "passed":
        _outcomes[report.nodeid.removeprefix("tests/")] = report.outcome, report.longreprtext


def pytest_collectreport(report: Any) -> None:
    """A module that cannot be imported fails as one test."""
    if report.failed:
        _outcomes[report.nodeid.removeprefix("tests/")] = report.outcome, report.longreprtext


def pytest_sessionfinish(session: Any) -> None:
    """Exit with 1 if something fails that is not declared."""
    session.exitstatus = int(not _report().is_good)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Count what holds, what differs on purpose, and what fails."""
    for line in _report().lines({name.partition("::")[0] for name in _outcomes}):
        terminalreporter.write_line(line)


def _report() -> Report:
    report = Report()
    for name, (outcome, text) in _outcomes.items():
        report.add(name, outcome, text.strip().rpartition("\n")[2][:150])
    return report


def main(checkout: str, arguments: list[str]) -> int:
    """Run the tests of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(Path(checkout) / "tests", Path(folder) / "tests")
        sys.path.insert(0, str(Path(__file__).parent))
        # A module that cannot be imported is reported, and the others run.
        given = [arg.replace("tests/", f"{folder}/tests/", 1) for arg in arguments if arg.startswith("tests/")]
        given = given or [f"{folder}/tests", f"{folder}/tests/clients/portkey.py"]  # its name is not that of a test
        options = [arg for arg in arguments if not arg.startswith("tests/")]
        fixed = ["-q", "--tb=line", "-p", "reference_tests", "-p", "no:cacheprovider", "--rootdir", folder]
        return int(pytest.main([*fixed, "--continue-on-collection-errors", *options, *given]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
