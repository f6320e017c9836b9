"""The gateway over both transports, driven by the official client, in the newest protocol and the one before."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import os
import resource
import socket
import ssl
import subprocess

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from gateway.gateway_process import COMMAND, KEY, call, http_server, options, over_http, smoke, stdio, web
from mcp import MCPError

from rlm_kernel.gateway.tools import TOOLS
from rlm_kernel.gateway.trail import audit

MODES = ["auto", "legacy"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("transport", [stdio, web])
async def test_the_smoke_path_holds_over_both_transports(repository, tmp_path, transport, mode):
    async with transport(repository, tmp_path, mode) as client:
        session = await smoke(client)
        await smoke(client, lambda name: name.replace(".", "_"))
        listed = [str(one.uri) for one in (await client.list_resources()).resources]
        assert f"rlm://sessions/{session}" in listed
        state = json.loads((await client.read_resource(f"rlm://sessions/{session}")).contents[0].text)
        assert state["used"]["tool_calls"] == 4
        prompt = await client.get_prompt("summarize", {"subject": "the sessions"})
        assert prompt.messages[0].content.text.startswith("Summarize the sessions")


async def test_all_tools_have_both_names_schemas_and_annotations(repository, tmp_path):
    async with stdio(repository, tmp_path, "auto") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert len(TOOLS) == 14
    assert set(tools) == set(TOOLS) | {name.replace(".", "_") for name in TOOLS}
    for tool in tools.values():
        assert tool.input_schema["type"] == tool.output_schema["type"] == "object"
        assert tool.annotations.read_only_hint is not None
    assert tools["rlm.exec.run"].annotations.destructive_hint is True
    assert tools["rlm.span.read"].annotations.read_only_hint is True


async def test_an_unknown_tool_is_told_with_those_that_exist(repository, tmp_path):
    async with stdio(repository, tmp_path, "auto") as client:
        result = await call(client, "rlm.file.delete")
        assert result["error_code"] == "UNKNOWN_TOOL"
        assert result["available_tools"] == sorted(TOOLS)
        with pytest.raises(MCPError, match="not found"):
            await client.read_resource("rlm://sessions/none")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "HTTP needs a key"),
        (["--api-key", KEY, "--rate", "0"], "--rate must be at least 1"),
        (["--api-key", KEY, "--tls-key", "missing.pem"], "--tls-cert and --tls-key must be PEM files"),
        (["--api-key", KEY, "--host", "192.0.2.1"], "choose another --host or --port"),
    ],
)
def test_http_that_cannot_be_safe_or_reached_does_not_start(repository, tmp_path, more, words):
    command = [*COMMAND, "--mode", "http", "--port", "0", *options(repository, tmp_path, *more)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_requests_without_the_key_or_of_another_page_are_refused(repository, tmp_path):
    allowed = ["--allow-host", "gateway.example", "--allow-origin", "https://ide.example"]
    with http_server(repository, tmp_path, *allowed) as url, httpx2.Client() as http:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        bearer = {"Authorization": f"Bearer {KEY}", "Accept": "application/json, text/event-stream"}
        home = url.removesuffix("/mcp")

        def status(**headers):
            return http.post(url, json=body, headers=headers).status_code

        assert http.get(f"{home}/health").json() == {"status": "ok", "service": "rlm-mcp-gateway"}
        assert status() == 401
        assert status(Authorization=f"Bearer {KEY}x") == 401
        assert status(**bearer, Host="evil.example") == 421
        assert status(**bearer, Host="gateway.example:443", Origin="https://ide.example") == 400  # no session
        assert status(**bearer, Origin="http://evil.example") == 403
        assert status(**bearer, Origin="http://ide.example") == 403
        assert http.post(url, content=b"x" * (2 << 20), headers=bearer).status_code == 413
        assert http.get(f"{home}/metrics").status_code == 401
        assert "rlm_gateway_sessions 0" in http.get(f"{home}/metrics", headers=bearer).text


@pytest.mark.parametrize(
    ("more", "shown", "warned"),
    [([], "http://127.0.0.1:", True), (["--allow-host", "gateway.example"], "http://gateway.example:", False)],
)
def test_the_address_that_is_printed_is_answered(repository, tmp_path, capfd, more, shown, warned):
    with http_server(repository, tmp_path, "--host", "0.0.0.0", *more) as url:
        assert url.startswith(shown)
    assert ("others get 421" in capfd.readouterr().err) == warned


async def test_keys_have_scopes_and_change_without_a_restart(repository, tmp_path):
    keys = tmp_path / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f"# name scopes key\nreader read {KEY}\nrunner read,exec {KEY[::-1]}\n")
    with http_server(repository, tmp_path, "--key-file", str(keys), key="") as url:
        async with over_http(url) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert "rlm.exec.run" not in names
            session = await smoke(client)
            refused = await call(client, "rlm.exec.run", session_id=session, code="1")
            assert refused["error_code"] == "NOT_ALLOWED"
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as http:
            counts = (await http.get(url.replace("/mcp", "/metrics"))).text.splitlines()
            assert 'rlm_gateway_calls_total{tool="rlm.span.read",outcome="ok"} 1' in counts
            assert 'rlm_gateway_calls_total{tool="rlm.exec.run",outcome="NOT_ALLOWED"} 1' in counts
            assert "rlm_gateway_sessions 1" in counts
        async with over_http(url, key=KEY[::-1]) as client:
            other = await call(client, "rlm.provenance.report", session_id=session)
            assert other["error"] == "Session not found"
        keys.write_text(f"reader read {KEY.upper()}\n")
        async with httpx2.AsyncClient() as http:
            for key, status in ((KEY, 401), (KEY.upper(), 400)):
                assert (await http.post(url, headers={"Authorization": f"Bearer {key}"})).status_code == status


def test_a_key_that_asks_too_often_waits_and_no_other(repository, tmp_path):
    keys = tmp_path / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f"reader read {KEY[::-1]}\n")
    with http_server(repository, tmp_path, "--rate", "3", "--key-file", str(keys)) as url, httpx2.Client() as http:

        def status(*credentials):
            return http.post(url, headers=[("Authorization", one) for one in credentials]).status_code

        statuses = [status(f"{kind} {KEY}") for kind in ("Bearer", "bearer", "BEARER", "bEARER", "beareR")]
        assert statuses[:3] == [400] * 3
        assert 429 in statuses[3:]
        assert 429 in [status(f"Bearer {KEY}", f"Bearer {n}") for n in range(3)]
        assert status(f"Bearer {KEY[::-1]}") == 400
        assert [status() for _ in range(5)] == [401] * 5


@pytest.fixture
def certificate(tmp_path):
    """The files of a certificate of 127.0.0.1, signed by itself, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(*formats))
    return files


async def test_with_the_files_of_tls_it_speaks_https_only(repository, tmp_path, certificate):
    files = ["--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1])]
    with http_server(repository, tmp_path, *files) as url:
        assert url.startswith("https://127.0.0.1:")
        async with over_http(url, verify=ssl.create_default_context(cafile=certificate[0])) as client:
            await smoke(client)
        async with httpx2.AsyncClient() as stranger:
            with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await stranger.get(url)
            with pytest.raises(httpx2.HTTPError):
                await stranger.get(url.replace("https", "http"))


async def test_the_trail_of_a_gateway_that_was_killed_verifies(repository, tmp_path):
    command = [*COMMAND, "--mode", "http", "--port", "0", *options(repository, tmp_path)]
    process = subprocess.Popen(
        command, env=os.environ | {"RLM_GATEWAY_API_KEY": KEY}, stdout=subprocess.PIPE, text=True
    )
    url = process.stdout.readline().strip()
    received = []

    async def read_on():
        async with over_http(url) as client:
            while True:
                session = await smoke(client)
                for _ in range(20):
                    received.append(await call(client, "rlm.fs.manifest", session_id=session, root="src"))

    readers = [asyncio.create_task(read_on()) for _ in range(4)]
    while len(received) < 30:
        await asyncio.sleep(0.01)
    process.kill()
    await asyncio.gather(*readers, return_exceptions=True)
    process.communicate()
    (trail,) = (tmp_path / "data" / "trail").iterdir()
    found = audit(trail)
    assert found.flaw is None
    assert found.calls >= len(received) + 5
    command = [*COMMAND, "audit", str(trail)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "valid" in done.stdout) == (0, True)
    trail.write_bytes(trail.read_bytes().replace(b"session.py", b"another.py", 1))
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 7


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_200_clients_at_once_are_served_without_an_error_and_in_bounded_memory(repository, tmp_path):
    import psutil

    command = [*COMMAND, "--mode", "http", "--port", "0", "--rate", "100000", *options(repository, tmp_path)]
    process = subprocess.Popen(
        command, env=os.environ | {"RLM_GATEWAY_API_KEY": KEY}, stdout=subprocess.PIPE, text=True
    )
    url = process.stdout.readline().strip()
    memory = psutil.Process(process.pid).memory_info

    async def one():
        async with over_http(url) as client:
            await smoke(client)

    try:
        for _ in range(2):
            await asyncio.gather(*(one() for _ in range(200)))
        first = memory().rss
        await asyncio.gather(*(one() for _ in range(200)))
        assert memory().rss < first * 1.25
    finally:
        process.terminate()
        process.communicate(timeout=20)


async def test_idle_connections_without_a_key_do_not_use_up_the_open_files(repository, tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, limit[1]))
        try:
            url = stack.enter_context(http_server(repository, tmp_path))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        where = httpx2.URL(url)
        for _ in range(150):
            stack.enter_context(socket.create_connection((where.host, where.port)))
        async with httpx2.AsyncClient() as http:
            assert (await http.get(url.replace("/mcp", "/health"))).status_code == 200
