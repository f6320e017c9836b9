"""The test suite itself: no test can reach a paid provider by accident."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from loopback import LoopbackProvider
from outside import OutsideNetworkError
from remote_clients import openai_lm

from rlm_kernel.clients.variables import environment_variables

OUTSIDE = ("192.0.2.1", 443)  # a block of addresses that is reserved for documents


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_connecting_to_an_outside_address_is_an_error(method):
    with socket.socket() as sock, pytest.raises(OutsideNetworkError, match="192\\.0\\.2\\.1"):
        getattr(sock, method)(OUTSIDE)


def test_an_outside_address_over_ip6_is_an_error():
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with socket.socket(socket.AF_INET6) as sock, pytest.raises(OutsideNetworkError):
        sock.connect(("2001:db8::1", 443, 0, 0))


def test_sending_a_datagram_outside_is_an_error():
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(OutsideNetworkError):
        sock.sendto(b"?", OUTSIDE)


def test_looking_up_an_outside_name_is_an_error():
    with pytest.raises(OutsideNetworkError, match="example"):
        socket.create_connection(("provider.example", 443))


async def test_asyncio_cannot_leave_either():
    with pytest.raises(OutsideNetworkError):
        await asyncio.open_connection(*OUTSIDE)


async def test_the_openai_backend_cannot_reach_openai():
    lm = openai_lm("gpt-5", "key", max_retries=0)
    with pytest.raises(Exception, match=r"OutsideNetworkError|only loopback is allowed"):
        await lm.complete([{"role": "user", "content": "hello"}])
    await lm.close()


def test_loopback_and_unix_sockets_are_free(tmp_path):
    with LoopbackProvider() as provider, socket.create_connection(("localhost", _port(provider))):
        pass
    left, right = socket.socketpair()
    with left, right, socket.socket(socket.AF_UNIX) as sock:
        assert sock.connect_ex(str(tmp_path / "nobody")) != 0


def test_no_key_of_the_developer_is_seen_by_a_test_or_its_children():
    code = "import os; print([name for name in os.environ if name.endswith('_API_KEY')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
    assert not [name for name in environment_variables() if name.endswith("_API_KEY")]


def test_the_working_directory_is_empty_and_outside_the_repository():
    assert not list(Path.cwd().iterdir())
    assert Path(__file__).parents[2] not in Path.cwd().parents


def test_the_users_jupyter_and_ipython_folders_are_not_used():
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        assert Path.home() not in Path(os.environ[name]).parents


def _port(provider):
    return int(provider.base_url.split(":")[2].removesuffix("/v1"))
