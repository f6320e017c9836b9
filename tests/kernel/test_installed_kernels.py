"""Any kernelspec that Jupyter finds is an environment: started as it says, without the keys of this process."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import psutil
import pytest

from rlm_kernel.errors import ConfigError, KernelError
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment

ARGV = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a kernelspec."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1")

    def install(name, **fields):
        folder = tmp_path / "kernels" / name
        folder.mkdir(parents=True)
        whole = {"argv": ARGV, "display_name": name, "language": "python", **fields}
        (folder / "kernel.json").write_text(json.dumps(whole), "utf-8")
        return name

    return install


async def test_it_runs_cells_and_asks_models(installed, echo):
    name = installed("my-conda", env={"OF_THE_SPEC": "yes"})
    async with await Session.open(environment(name, {"setup_code": "y = 5"}), echo) as session:
        await session.set("context", "abc")
        cell = await session.run("import os; print(llm_query(context)); os.environ['OF_THE_SPEC'], y")
        assert (cell.stdout, cell.value) == ("ABC\n", "('yes', 5)")
        interrupted = await session.run("while True: pass", timeout=0.5)
        assert (interrupted.status, interrupted.error.name) == ("timeout", "KeyboardInterrupt")
        await session.run("import os; os._exit(1)")
        await session.restart()
        assert (await session.run("y")).value == "5"


async def test_what_a_cell_started_ends_with_a_kernel_that_ended_by_itself(installed, echo):
    async with await Session.open(environment(installed("mine"), None), echo) as session:
        started = await session.run("import subprocess; subprocess.Popen(['sleep', '600']).pid")
        child = psutil.Process(int(started.value))
        await session.run("import os; os._exit(1)")
        _, alive = await asyncio.to_thread(psutil.wait_procs, [child], 20)
        assert alive == []


async def test_no_key_enters_it_and_it_starts_in_an_empty_directory(installed, echo):
    async with await Session.open(environment(installed("mine"), None), echo, seed=7) as session:
        cell = await session.run("import os; print(dict(os.environ)); os.listdir(), os.environ['PYTHONHASHSEED']")
        where = (await session.run("os.getcwd()")).value
    assert "sk-secret" not in cell.stdout
    assert cell.value == "([], '7')"
    assert not Path(where.strip("'")).exists()


async def test_env_and_cwd_are_the_ones_asked_for(installed, echo, tmp_path):
    options = {"env": {"GREETING": "hello"}, "cwd": str(tmp_path)}
    async with await Session.open(environment(installed("mine"), options), echo) as session:
        cell = await session.run("import os\nprint(os.environ['GREETING'], os.getcwd())")
        assert cell.stdout == f"hello {tmp_path}\n"


async def test_one_that_cannot_start_says_why(installed, echo):
    name = installed("broken", argv=[sys.executable, "-c", "raise SystemExit('no such thing')", "{connection_file}"])
    with pytest.raises(KernelError, match="(?s)ended while it started.*no such thing"):
        await Session.open(environment(name, None), echo)


def test_one_of_another_language_is_refused(installed):
    with pytest.raises(ConfigError, match="its language is 'R', and cells are Python"):
        environment(installed("ir", language="R"), None)


def test_a_provisioner_that_is_not_installed_is_named(installed):
    name = installed("far", metadata={"kernel_provisioner": {"provisioner_name": "far-away"}})
    with pytest.raises(ConfigError, match="'far-away', which is not installed"):
        environment(name, None)


@pytest.mark.parametrize(
    "fields", [{"metadata": None}, {"metadata": {"kernel_provisioner": None}}, {"env": None}, {"display_name": None}]
)
def test_what_a_kernelspec_leaves_open_is_as_if_it_were_not_there(installed, fields):
    spec = environment(installed("mine", **fields), None).load()
    assert spec.metadata["kernel_provisioner"]["provisioner_name"] == "rlm-installed"


def test_a_kernelspec_without_a_language_is_refused(installed):
    with pytest.raises(ConfigError, match="its language is None, and cells are Python"):
        environment(installed("mine", language=None), None)


@pytest.mark.parametrize("text", ["{", "[]", '{"language": "python", "metadata": []}'])
def test_a_broken_kernelspec_names_its_file(installed, tmp_path, text):
    file = tmp_path / "kernels" / installed("broken") / "kernel.json"
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match="'broken' cannot be read, mend .*broken/kernel.json"):
        environment("broken", None)


@pytest.mark.parametrize("name", ["My-Conda", "my-conda", "MY-CONDA"])
def test_a_kernelspec_may_be_written_in_any_case(installed, name):
    installed("My-Conda")
    assert environment(name, None).load().display_name == "My-Conda"


def test_an_option_it_does_not_know_is_refused_with_the_list(installed):
    with pytest.raises(ConfigError, match="Allowed: setup_code, cell_timeout, pool, .*cwd, env"):
        environment(installed("mine"), {"memory": "2g"})


def test_an_unknown_name_lists_what_is_installed(installed):
    installed("my-conda")
    with pytest.raises(ConfigError, match=r"Unknown environment 'conda'.*installed kernelspec \(here: .*'my-conda'"):
        environment("conda", None)
