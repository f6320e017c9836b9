"""Other Jupyter clients start the kernelspec, through its provisioner or by its argv alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import psutil
import pytest
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.connect import write_connection_file
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from rlm_kernel.provisioners.kernelspecs import AVAILABLE, spec_folder


@pytest.fixture(autouse=True)
def _installed(tmp_path, monkeypatch):
    """As `pip install` puts them there."""
    for name in AVAILABLE.values():
        shutil.copytree(spec_folder(name), tmp_path / "share" / "kernels" / name)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "data.txt").write_text("of the project")
    monkeypatch.chdir(tmp_path / "project")


def notebook(*cells):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in cells])


def printed(executed):
    return "".join(output["text"] for cell in executed.cells for output in cell.outputs if "text" in output)


async def test_nbclient_runs_a_notebook_in_a_container_that_sees_the_launch_directory(gone):
    cells = "print(open('data.txt').read())", "import os; print(os.getcwd(), os.listdir('/sys/class/net'))"
    executed = await NotebookClient(notebook(*cells), kernel_name="rlm-docker", timeout=60).async_execute()
    assert printed(executed) == f"of the project\n{Path.cwd()} ['lo']\n"


async def test_the_launch_directory_is_read_only():
    client = NotebookClient(notebook("open('data.txt', 'w')"), kernel_name="rlm-docker", timeout=60)
    with pytest.raises(CellExecutionError, match="Read-only file system"):
        await client.async_execute()


async def test_a_local_kernel_of_another_client_starts_where_the_client_does():
    cells = "open('made.txt', 'w').write('x'); import os; print(os.getcwd())", "print(hash('a text'))"
    first, second = [
        await NotebookClient(notebook(*cells), kernel_name="rlm-local", timeout=60).async_execute() for _ in range(2)
    ]
    assert printed(first).startswith(f"{Path.cwd()}\n")
    assert Path("made.txt").exists()
    assert printed(first) == printed(second)  # hashes, too


async def test_a_manager_restarts_interrupts_and_shuts_down():
    manager = AsyncKernelManager(kernel_name="rlm-docker")
    await manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(60)
        await client.execute_interactive("x = 1", timeout=20)
        await manager.restart_kernel(now=True)
        await client.wait_for_ready(60)
        reply = await client.execute_interactive("x", timeout=20, output_hook=lambda _: None)
        assert reply["content"]["ename"] == "NameError"
        running = asyncio.create_task(client.execute_interactive("while True: pass", timeout=30, output_hook=_ignore))
        await asyncio.sleep(0.5)
        await manager.interrupt_kernel()
        assert (await running)["content"]["ename"] == "KeyboardInterrupt"
        assert await manager.is_alive()
    finally:
        client.stop_channels()
        await manager.shutdown_kernel()
    assert not await manager.is_alive()
    assert manager.provisioner is None or not manager.provisioner.has_process


def _ignore(_):
    pass


BLOCKING = textwrap.dedent(
    """
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="rlm-docker")
    said = []
    client.execute_interactive("print(6 * 7)", timeout=60, output_hook=said.append)
    print([m["content"]["text"] for m in said if m["msg_type"] == "stream"])
    client.stop_channels()
    manager.shutdown_kernel()
    """
)


def test_a_blocking_client_needs_no_event_loop_of_its_own():
    # Its loop stands still between two calls, and the relay goes on.
    done = subprocess.run([sys.executable, "-c", BLOCKING], capture_output=True, text=True, check=False, timeout=100)
    assert done.stdout == "['42\\n']\n", done.stderr


async def answers(client):
    """Wait for a kernel that takes longer to start than this client would have a heart pause."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(RuntimeError):
                return await client.wait_for_ready(60)


@pytest.fixture
def by_argv(tmp_path):
    """Starts what stands in `argv`, as clients do that ignore provisioners: with ports of their own choice."""
    started = []

    def start():
        file, connection = write_connection_file(str(tmp_path / "connection.json"))
        fields = json.loads((spec_folder("rlm-docker") / "kernel.json").read_text("utf-8"))
        command = [sys.executable, *(part.format(connection_file=file) for part in fields["argv"][1:])]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        client = AsyncKernelClient()
        client.load_connection_info(connection)
        client.start_channels()
        return started[0], client

    yield start
    for process in started:
        process.kill()
        process.communicate()


async def containers_of(docker_engine, process):
    owner = f"rlm-kernel.host={os.uname().nodename}:{process.pid}"
    return docker_engine.containers(all=True, filters={"label": owner})


async def none_left(docker_engine, process):
    async with asyncio.timeout(20):
        while await containers_of(docker_engine, process):
            await asyncio.sleep(0.1)


async def test_the_argv_alone_is_a_kernel(by_argv, docker_engine):
    process, client = by_argv()
    try:
        await answers(client)
        said = []
        await client.execute_interactive("print(open('data.txt').read())", timeout=20, output_hook=said.append)
        assert [m["content"]["text"] for m in said if m["msg_type"] == "stream"] == ["of the project\n"]
        running = asyncio.create_task(client.execute_interactive("while True: pass", timeout=30, output_hook=_ignore))
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert (await running)["content"]["ename"] == "KeyboardInterrupt"
        client.shutdown()
        assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        client.stop_channels()
    await none_left(docker_engine, process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_the_end_of_the_argv_is_the_end_of_the_container(by_argv, docker_engine, number):
    process, client = by_argv()
    try:
        await answers(client)
    finally:
        client.stop_channels()
    process.send_signal(number)
    assert await asyncio.to_thread(process.wait, 20) in (128 + signal.SIGTERM, -signal.SIGKILL)
    await none_left(docker_engine, process)


async def test_the_argv_ends_with_the_status_and_the_last_words_of_its_kernel(by_argv, docker_engine):
    process, client = by_argv()
    try:
        await answers(client)
        client.execute("import os, sys; os.write(sys.stderr._original_stdstream_copy, b'last words'); os._exit(7)")
        _, said = await asyncio.to_thread(process.communicate, timeout=30)
    finally:
        client.stop_channels()
    assert (process.returncode, said[-11:]) == (7, "last words\n")
    await none_left(docker_engine, process)


def test_an_argv_that_cannot_start_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    file, _ = write_connection_file(str(tmp_path / "connection.json"))
    command = [sys.executable, "-P", "-m", "rlm_kernel.provisioners.relay.proxy", "rlm-docker", "-f", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("No Docker engine answers")
    assert "Traceback" not in done.stderr


CLIENT = """
import subprocess, sys, time
proxy = "rlm_kernel.provisioners.relay.proxy"
process = subprocess.Popen([sys.executable, "-P", "-m", proxy, "rlm-docker", "-f", sys.argv[1]])
print(process.pid, flush=True)
time.sleep(600)
"""


async def test_the_argv_ends_with_the_client_that_started_it(tmp_path, docker_engine):
    file, connection = write_connection_file(str(tmp_path / "connection.json"))
    client = AsyncKernelClient()
    client.load_connection_info(connection)
    client.start_channels()
    with subprocess.Popen([sys.executable, "-c", CLIENT, file], stdout=subprocess.PIPE, text=True) as starter:
        process = psutil.Process(int(starter.stdout.readline()))
        try:
            await answers(client)
        finally:
            client.stop_channels()
            starter.kill()
    await asyncio.to_thread(process.wait, 20)
    await none_left(docker_engine, process)
