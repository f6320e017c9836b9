"""Other Jupyter clients start the kernelspec `rlm-modal` too: what JupyterLab, nbclient and papermill do."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.connect import write_connection_file
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from selection import mostly_full

from rlm import RLM, ScriptedLM
from rlm_kernel.errors import ConfigError
from rlm_kernel.installation import install_command
from rlm_kernel.provisioners.kernelspecs import environment, spec_folder


@pytest.fixture
def _installed(tmp_path, monkeypatch):
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    (kernels / "rlm-modal").symlink_to(spec_folder("rlm-modal"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))


@pytest.mark.usefixtures("_installed")
async def test_nbclient_runs_a_notebook_in_a_sandbox(modal_emulator):
    cells = ["x = 20", "import os; print(os.environ['MODAL_SANDBOX_ID'])\nx + 1", "1 / 0"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, kernel_name="rlm-modal", allow_errors=True, timeout=60)
    await client.async_execute()
    printed, value = notebook.cells[1].outputs
    assert printed["text"].strip() == modal_emulator.sandboxes[0].id
    assert value["data"]["text/plain"] == "21"
    assert notebook.cells[2].outputs[0]["ename"] == "ZeroDivisionError"
    assert modal_emulator.running() == []


@pytest.mark.usefixtures("_installed")
def test_a_stock_blocking_client_runs_interrupts_and_restarts(modal_emulator):
    manager = KernelManager(kernel_name="rlm-modal")
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        assert execute(client, "x = 6; x * 7") == ("ok", "42")
        running = client.execute("print('begun', flush=True)\nwhile True: pass")
        while client.get_iopub_msg(timeout=60)["msg_type"] != "stream":
            continue
        manager.interrupt_kernel()
        assert client._recv_reply(running, timeout=60)["content"]["ename"] == "KeyboardInterrupt"
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=60)
        assert execute(client, "'x' in globals()") == ("ok", "False")
        assert len(modal_emulator.sandboxes) == 2
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert modal_emulator.running() == []


@pytest.mark.parametrize("transport", mostly_full(["tcp", "ipc"], "tcp"))
@pytest.mark.parametrize("end", mostly_full([signal.SIGTERM, None], signal.SIGTERM))
def test_the_argv_alone_starts_a_sandbox_for_clients_without_provisioners(modal_emulator, tmp_path, transport, end):
    file = str(tmp_path / "kernel.json")
    ip = "127.0.0.1" if transport == "tcp" else str(tmp_path / "k")
    write_connection_file(file, transport=transport, ip=ip, key=b"a key")
    argv = json.loads((spec_folder("rlm-modal") / "kernel.json").read_text("utf-8"))["argv"]
    command = [sys.executable, *(part.format(connection_file=file) for part in argv[1:])]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    client = BlockingKernelClient()
    client.load_connection_file(file)
    client.start_channels()
    try:
        wait_until_heard(client)
        assert execute(client, "import os; os.environ['MODAL_SANDBOX_ID']") == (
            "ok",
            repr(modal_emulator.sandboxes[0].id),
        )
        process.send_signal(end) if end is not None else client.shutdown()
        process.wait(30)
    finally:
        client.stop_channels()
        process.kill()
        process.wait()
    assert modal_emulator.running() == []


def wait_until_heard(client):
    """Like `wait_for_ready`, which takes a kernel for dead whose heart beats late on a busy machine."""
    while True:
        client.kernel_info(reply=True, timeout=60)
        with contextlib.suppress(queue.Empty):
            client.get_iopub_msg(timeout=0.5)
            return


def execute(client, code):
    values = []

    def keep(message):
        if message["msg_type"] == "execute_result":
            values.append(message["content"]["data"]["text/plain"])

    reply = client.execute_interactive(code, timeout=60, output_hook=keep)
    return reply["content"]["status"], "".join(values)


def test_an_rlm_answers_from_a_sandbox_and_its_children_from_their_own(modal_emulator):
    def reply(messages):
        asked_by_parent = "child" in str(messages[-1]["content"]) or "child" in str(messages[1]["content"])
        code = "FINAL(context.upper())" if asked_by_parent else "FINAL(rlm_query('child of ' + context))"
        return f"```repl\n{code}\n```"

    options = {"app_name": "my-app", "timeout": 600}
    with RLM(ScriptedLM(reply), environment="modal", environment_kwargs=options, max_depth=2) as rlm:
        assert rlm.completion("mine").response == "CHILD OF MINE"
    assert len(modal_emulator.sandboxes) == 2
    assert modal_emulator.running() == []


def test_an_unknown_option_is_refused_with_the_list():
    allowed = "app_name, block_network, cpu, env, gpu, image, memory, packages, timeout"
    with pytest.raises(ConfigError, match=f"no option 'region' for 'modal'.*{allowed}"):
        RLM(ScriptedLM([]), environment="modal", environment_kwargs={"region": "us-east"})


def test_a_missing_client_is_told_when_the_rlm_is_made(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=re.escape(install_command("modal"))):
        RLM(ScriptedLM([]), environment="modal")


def test_the_kernelspec_is_found_by_its_documented_name():
    found = environment("modal", {"timeout": 600, "setup_code": "x = 1", "cell_timeout": 5})
    assert (found.kernelspec, found.options, found.cell_timeout) == ("rlm-modal", {"timeout": 600}, 5)
    assert Path(found.load().resource_dir).name == "rlm-modal"
