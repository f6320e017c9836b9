"""A kernel behind two pipes: what stock clients see, what the wire bears, and how the end of one ends the other."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from pathlib import Path

import psutil
import pytest
import zmq.asyncio
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.session import Session

from rlm_kernel.errors import KernelError
from rlm_kernel.provisioners.docker.images import kernel_image
from rlm_kernel.provisioners.relay.host_end import LOST, RelayHost, interrupt, source
from rlm_kernel.provisioners.relay.remote_end import ENDED, IOPUB, LOG, MAX_SOCKETS, encode
from rlm_kernel.zmtp.sockets import address

BINARY_AND_TEXT = pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])


def below(process):
    return psutil.Process(process.pid).children(recursive=True)


async def all_ended(processes):
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, 10)
    return not alive


@BINARY_AND_TEXT
async def test_a_stock_client_runs_a_cell_on_all_channels(relayed, text):
    kernel = await relayed(text=text)
    reply, said = await kernel.execute("print('hello'); 6 * 7")
    assert (reply["status"], said) == ("ok", "hello\n")
    assert await kernel.client.is_alive()
    control = kernel.client.session.msg("kernel_info_request")
    kernel.client.control_channel.send(control)
    answer = await kernel.client.get_control_msg(timeout=20)
    assert answer["parent_header"]["msg_id"] == control["header"]["msg_id"]
    async with asyncio.timeout(20):
        while not kernel.client.hb_channel.is_beating():
            await asyncio.sleep(0.05)


@BINARY_AND_TEXT
async def test_stdin_is_carried_too(relayed, text):
    kernel = await relayed(text=text)
    sent = kernel.client.execute("print(input('name? '))", allow_stdin=True)
    asked = await kernel.client.get_stdin_msg(timeout=20)
    assert asked["content"]["prompt"] == "name? "
    kernel.client.input("Ada")
    printed = ""
    async with asyncio.timeout(20):
        while not printed.endswith("\n"):  # a busy kernel may send it in two pieces
            message = await kernel.client.get_iopub_msg(timeout=20)
            if message["msg_type"] == "stream" and message["parent_header"]["msg_id"] == sent:
                printed += message["content"]["text"]
    assert printed == "Ada\n"


@BINARY_AND_TEXT
async def test_large_messages_arrive_whole_both_ways(relayed, text):
    kernel = await relayed(text=text)
    size = 20_000_000
    reply, said = await kernel.execute(f"data = {'x' * size!r}\nprint(data)")
    assert reply["status"] == "ok"
    assert said == "x" * size + "\n"


async def test_two_clients_at_a_time_get_their_own_replies(relayed):
    kernel = await relayed()
    other = AsyncKernelClient()
    other.load_connection_info(kernel.connection)
    other.start_channels()
    try:
        await other.wait_for_ready(20)
        mine, theirs = kernel.client.execute("1"), other.execute("2")
        for client, sent in ((kernel.client, mine), (other, theirs)):
            reply = await client.get_shell_msg(timeout=20)
            assert reply["parent_header"]["msg_id"] == sent
    finally:
        other.stop_channels()
        other.context.destroy(0)


async def test_clients_that_have_gone_cost_nothing_and_who_waits_for_a_reply_gets_it(relayed):
    kernel = await relayed()
    told = kernel.connection["ip"] + ".go"
    waits = f"import pathlib, time\nwhile not pathlib.Path({told!r}).exists(): time.sleep(0.01)\nprint('answered')"
    running = asyncio.create_task(kernel.execute(waits))
    session = Session(key=kernel.connection["key"])
    for _ in range(2 * MAX_SOCKETS):
        with zmq.asyncio.Context.instance().socket(zmq.DEALER) as visitor:
            visitor.connect(address(kernel.connection, "control"))
            await visitor.send_multipart(session.serialize(session.msg("kernel_info_request")))
            async with asyncio.timeout(20):
                await visitor.recv_multipart()
    descriptors = psutil.Process(kernel.remote.process.pid).num_fds()
    Path(told).touch()
    reply, said = await running
    assert (reply["status"], said) == ("ok", "answered\n")
    assert descriptors < 3 * MAX_SOCKETS


async def test_an_interrupt_reaches_the_cell(relayed):
    kernel = await relayed()
    running = asyncio.create_task(kernel.execute("print('on', flush=True)\nwhile True: pass"))
    await asyncio.sleep(0.5)
    interrupt(kernel.connection)
    reply, _ = await running
    assert reply["ename"] == "KeyboardInterrupt"


@pytest.mark.full
async def test_a_reader_that_stalls_loses_nothing(relayed):
    kernel = await relayed()
    with zmq.Context() as context:
        context.setsockopt(zmq.RCVHWM, 0)
        with context.socket(zmq.SUB) as stalled:
            stalled.subscribe(b"")
            stalled.connect(f"ipc://{kernel.connection['ip']}-{kernel.connection['iopub_port']}")
            while not await asyncio.to_thread(stalled.poll, 50):  # until it is subscribed
                kernel.client.kernel_info()
            reply, said = await kernel.execute(
                "for i in range(20_000): get_ipython().display_pub.publish({'text/plain': str(i)})\nprint('done')"
            )
            assert (reply["status"], said) == ("ok", "done\n")
            shown = 0
            while await asyncio.to_thread(stalled.poll, 1000):
                shown += b"display_data" in stalled.recv_multipart()[0]
    assert shown == 20_000


@BINARY_AND_TEXT
async def test_the_end_of_the_kernel_is_told_with_its_status_and_its_last_words(relayed, text):
    kernel = await relayed(text=text)
    kernel.client.execute("import os; os.write(2, b'last words'); print('printed', flush=True); os._exit(7)")
    assert await asyncio.wait_for(kernel.host.ended, 20) == 7
    assert kernel.host.log.endswith(b"last words")
    assert await kernel.remote.process.wait() == 0


async def test_closing_ends_the_kernel_and_all_it_started(relayed):
    kernel = await relayed()
    await kernel.execute("import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)")
    processes = below(kernel.remote.process)
    assert len(processes) == 3
    await kernel.host.close()
    assert await all_ended(processes)
    assert kernel.host.ended.done()
    await kernel.host.close()


async def test_a_killed_relay_takes_the_kernel_with_it(relayed):
    kernel = await relayed()
    processes = below(kernel.remote.process)
    kernel.client.execute("print('x' * 50_000_000)")
    kernel.remote.process.kill()  # in the middle of that message, as a rule
    assert await asyncio.wait_for(kernel.host.ended, 20) == LOST
    assert await all_ended(processes)


async def test_a_killed_launcher_takes_the_kernel_with_it(relayed):
    kernel = await relayed()
    launcher, kernel_process = below(kernel.remote.process)
    launcher.kill()
    assert await asyncio.wait_for(kernel.host.ended, 20) != 0
    assert await all_ended([kernel_process])


HOST = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from conftest_of_relay import Piped, addresses
from rlm_kernel.provisioners.local_base import private_directory
from rlm_kernel.provisioners.relay.host_end import RelayHost, source
from rlm_kernel.provisioners.zmq_context import zmq_context
from jupyter_client.asynchronous import AsyncKernelClient

async def main():
    connection = addresses(private_directory())
    remote = await Piped.start(sys.executable, "-c", source("relay/remote_end.py"))
    host = await RelayHost.open(connection, remote)
    client = AsyncKernelClient()
    client.load_connection_info(connection)
    client.start_channels()
    await client.wait_for_ready(60)
    print(remote.process.pid, flush=True)
    client.execute("x = " + repr("y" * 200_000_000))
    await host.ended

asyncio.run(main())
"""


async def test_a_killed_host_leaves_nothing_behind(tmp_path):
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path / "conftest_of_relay.py")
    host = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOST, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    relay = psutil.Process(int(await host.stdout.readline()))
    processes = [relay, *relay.children(recursive=True)]
    assert len(processes) == 3
    host.send_signal(signal.SIGKILL)  # in the middle of that message
    await host.wait()
    assert await all_ended(processes)


@pytest.mark.elsewhere
async def test_it_is_carried_by_docker_exec(relayed, docker_engine):
    image = kernel_image(docker_engine, "python:3.11-slim", [])
    made = docker_engine.create_container(
        image, command=["sleep", "600"], host_config=docker_engine.create_host_config(network_mode="none", init=True)
    )["Id"]
    try:
        docker_engine.start(made)
        kernel = await relayed("docker", "exec", "-i", made, "python3", "-u", "-c", source("relay/remote_end.py"))
        reply, said = await kernel.execute("import os; print(os.listdir('/sys/class/net'))")
        assert (reply["status"], said) == ("ok", "['lo']\n")
        await kernel.host.close()
        async with asyncio.timeout(20):
            while len(docker_engine.top(made)["Processes"]) > 2:
                await asyncio.sleep(0.1)
    finally:
        docker_engine.remove_container(made, force=True)


class Forged:
    """A `Remote` whose output somebody else wrote."""

    def __init__(self, *pieces):
        self.pieces = pieces

    async def write(self, data):
        pass

    async def __aiter__(self):
        for piece in self.pieces:
            yield piece

    async def close(self):
        pass


def frame(kind, *parts):
    return b"".join(bytes(piece) for piece in encode(kind, parts))


@pytest.mark.parametrize(
    "stream",
    [
        b"Traceback (most recent call last): ...",
        b"\xff" * 100,
        frame(99, b"a kind that is none"),
        frame(ENDED, b"not a number"),
        frame(ENDED),
        frame(LOG),
        frame(IOPUB),
        frame(0),
        b"",
    ],
)
async def test_what_is_no_frame_ends_the_relay_and_nothing_else(stream, tmp_path):
    from rlm_kernel.provisioners.local_base import private_directory

    directory = private_directory()
    connection = {
        **{f"{name}_port": n for n, name in enumerate(("shell", "iopub", "stdin", "control", "hb"), 1)},
        "transport": "ipc",
        "ip": f"{directory}/k",
        "key": b"k",
        "signature_scheme": "hmac-sha256",
    }
    host = await RelayHost.open(connection, Forged(stream))
    assert await asyncio.wait_for(host.ended, 10) == LOST
    await host.close()


async def test_an_address_that_cannot_be_used_is_named():
    connection = {
        **{f"{name}_port": 1 for name in ("shell", "iopub", "stdin", "control", "hb")},
        "transport": "ipc",
        "ip": "/there/is/no/such/folder/k",
        "key": b"k",
        "signature_scheme": "hmac-sha256",
    }
    with pytest.raises(KernelError, match="cannot listen at /there/is/no"):
        await RelayHost.open(connection, Forged())
