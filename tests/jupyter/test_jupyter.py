"""Kernels of a real Jupyter server, also of its gateways, over a wire that is cut."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from machines import TOKEN, JupyterServer, Wire, free_port

from rlm import RLM, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel.errors import ConfigError, KernelError
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.jupyter import wire as wire_format
from rlm_kernel.provisioners.kernelspecs import environment

ROOT = Path(__file__).parents[2]
CELL = "```repl\n{}\n```"


async def test_a_kernel_answers_asks_and_is_gone_afterwards(open_session, kernels):
    async with await open_session() as session:
        cell = await session.run("import os; print(os.listdir()); llm_query('hello')")
        assert (cell.stdout, cell.value) == ("[]\n", "'HELLO'")
        assert len(kernels()) == 1
    assert kernels() == []


async def test_values_larger_than_a_message_of_the_server_arrive(open_session):
    async with await open_session() as session:
        await session.set("context", "é" * 12_000_000)
        assert (await session.run("len(context), set(context)")).value == "(12000000, {'é'})"


async def test_the_rate_limits_of_the_server_drop_nothing(open_session):
    async with await open_session() as session:
        cell = await session.run("for n in range(80): print('x' * 100_000)\nFINAL('the end')\n1 / 0")
    assert cell.report.final == "the end"
    assert cell.error.name == "ZeroDivisionError"
    assert "rate exceeded" not in cell.stderr
    assert cell.stdout.startswith("xxx")


async def test_a_cell_goes_on_through_a_cut_and_nothing_is_lost(wired_session, wire):
    running = asyncio.create_task(
        wired_session.run("import time\nprint('a', flush=True)\ntime.sleep(1)\nprint('b')\nFINAL('c')")
    )
    await asyncio.sleep(0.4)
    wire.cut()
    cell = await running
    assert (cell.status, cell.stdout, cell.report.final) == ("ok", "a\nb\n", "c")


async def test_the_reply_of_a_cell_that_ends_while_there_is_no_connection_arrives(wired_session, wire):
    running = asyncio.create_task(wired_session.run("import time\ntime.sleep(0.5)\nFINAL('c')\n6 * 7"))
    await asyncio.sleep(0.2)
    wire.is_down = True
    wire.cut()
    await asyncio.sleep(1)
    wire.is_down = False
    cell = await running
    assert (cell.value, cell.report.final) == ("42", "c")


async def test_an_answer_that_is_sent_into_a_cut_arrives(wired_session, wire, capitals):
    async def cut():
        wire.cut()

    capitals.before = cut
    cell = await wired_session.run("[llm_query(text) for text in 'abc']")
    assert cell.value == "['A', 'B', 'C']"


async def test_a_kernel_that_ended_is_reported(open_session):
    async with await open_session() as session:
        cell = await session.run("import os; os._exit(3)")
        assert cell.status == "died"
        assert "restarted the kernel" in session.why_it_died


async def test_the_server_going_away_for_good_is_reported(open_session, tmp_path, monkeypatch):
    monkeypatch.setattr("rlm_kernel.provisioners.jupyter.remote.RECONNECT_SECONDS", 1)
    with JupyterServer(tmp_path) as server:
        session = await open_session(url=server.url)
    async with session:
        cell = await session.run("1")
        assert cell.status == "died"
        assert "cannot be reached" in session.why_it_died


@pytest.mark.parametrize(
    ("options", "kind", "expected"),
    [
        ({"token": "wrong-token-1"}, ConfigError, r"does not accept the token.*JUPYTER_TOKEN"),
        ({"kernel_name": "cobol"}, ConfigError, r"no kernelspec 'cobol': set 'kernel_name' to one of .*'python3'"),
        ({"url": f"http://127.0.0.1:{free_port()}"}, KernelError, r"cannot be reached.*is the Jupyter server running"),
    ],
)
async def test_an_error_says_what_to_do_and_not_the_token(open_session, options, kind, expected):
    with pytest.raises(kind, match=expected) as caught:
        await open_session(**options)
    shown = "".join(traceback.format_exception(caught.value))
    assert TOKEN not in shown
    assert "wrong-token-1" not in shown


async def test_a_silent_server_is_given_up_after_the_time_to_connect():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = {"url": f"http://127.0.0.1:{silent.getsockname()[1]}", "connect_timeout": 0.2}
        with pytest.raises(KernelError, match=r"did not answer within 0\.2 s.*'connect_timeout'"):
            await Session.open(environment("jupyter", options), None)


@pytest.mark.parametrize(
    "url", ["http://host:8888/lab?token=s3cret", "http://me:s3cret@host", "host:8888", "ftp://host"]
)
def test_a_url_with_a_secret_in_it_is_refused(url):
    with pytest.raises(ConfigError, match="url is like") as caught:
        environment("jupyter", {"url": url})
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_token_of_another_type_is_refused_without_being_quoted():
    with pytest.raises(ConfigError, match="a text") as caught:
        environment("jupyter", {"url": "http://host", "token": 123454321})
    assert "123454321" not in str(caught.value)


def test_no_token_is_in_a_log_or_a_notebook(jupyter_server, tmp_path):
    script = [CELL.format("print(len(context))\nllm_query('a')"), "A", CELL.format("FINAL('done')")]
    with RLM(
        ScriptedLM(script),
        environment="jupyter",
        environment_kwargs=jupyter_server.kernel_options,
        logger=RLMLogger(tmp_path),
    ) as rlm:
        completion = rlm.completion("text", "q")
    assert completion.response == "done"
    written = [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    assert len(written) > 1
    assert not any(TOKEN in text for text in [*written, str(completion.metadata), str(rlm)])


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"\xff" * 64, bytes([9]) + bytes(7) + b"x" * 80, b"\6" + bytes(7)])
def test_bytes_that_are_no_message_are_refused(data):
    with pytest.raises(ValueError, match="a message"):
        wire_format.decode(data)


def test_a_message_survives_the_wire():
    parts = [b"{}", b"", b"{}", b"x" * 300, b"buffer"]
    assert wire_format.decode(wire_format.encode("control", parts)) == ("control", parts)


GATEWAYS = {
    "jupyter_kernel_gateway": (
        "jupyter-kernelgateway",
        "--KernelGatewayApp.ip=127.0.0.1",
        "--KernelGatewayApp.port={port}",
        "--KernelGatewayApp.auth_token={token}",
        "--JupyterWebsocketPersonality.list_kernels=True",  # for the tests alone
    ),
    "jupyter_enterprise_gateway": (
        "jupyter-enterprisegateway",
        "--ip=127.0.0.1",
        "--port={port}",
        "--port_retries=0",
        "--EnterpriseGatewayApp.auth_token={token}",
        "--EnterpriseGatewayApp.list_kernels=True",
    ),
}


class Gateway(JupyterServer):
    """A gateway in a virtual environment of its own: the packages of Enterprise Gateway do not go with ours."""

    def __init__(self, folder, package):
        super().__init__(folder)
        venv = ROOT / ".cache" / package
        self.bin = venv / "bin"
        self.words = GATEWAYS[package]
        uv = shutil.which("uv", path=str(Path(sys.executable).parent))
        subprocess.run([uv, "venv", "-q", "--allow-existing", venv], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", self.bin / "python", package, "ipykernel"], check=True)

    def command(self):
        name, *options = self.words
        return [self.bin / name, *(option.format(port=self.port, token=TOKEN) for option in options)]

    def env(self):
        return {**super().env(), "PATH": f"{self.bin}:{os.environ['PATH']}"}


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("package", GATEWAYS)
async def test_a_gateway_is_a_server_too(tmp_path, package, capitals):
    with Gateway(tmp_path, package) as server, Wire(server.port) as wire:
        options = {**server.kernel_options, "url": f"http://127.0.0.1:{wire.port}"}
        async with await Session.open(environment("jupyter", options), capitals) as session:
            await session.set("context", "x" * 15_000_000)
            cell = await session.run("print(len(context)); llm_query('hello')")
            assert (cell.stdout, cell.value) == ("15000000\n", "'HELLO'")
            flood = await session.run("for n in range(80): print('x' * 100_000)\nFINAL('the end')")
            assert (flood.report.final, flood.stderr) == ("the end", "")
            running = asyncio.create_task(session.run("import time; time.sleep(1); print('a'); FINAL(llm_query('b'))"))
            await asyncio.sleep(0.4)
            wire.cut()
            cut = await running
            assert (cut.status, cut.stdout, cut.report.final) == ("ok", "a\n", "B")
            stopped = asyncio.create_task(session.run("import time; time.sleep(60)"))
            await asyncio.sleep(0.5)
            session.interrupt()
            assert (await stopped).error.name == "KeyboardInterrupt"
        assert TOKEN not in server.log.read_text()
        assert server.get("/api/kernels").strip() == b"[]"
