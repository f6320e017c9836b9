"""An engine that is reached over TCP or TLS cannot share a Unix socket: the relay is chosen, and nothing is mounted."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading

import pytest

from rlm_kernel.provisioners.docker import daemon as provisioner

ENGINE = "/var/run/docker.sock"


class Forwarder:
    """Listens on loopback and passes everything on to the engine's Unix socket."""

    def __init__(self, tls=None):
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listening.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            client = stack.enter_context(self._tls.wrap_socket(client, server_side=True) if self._tls else client)
            engine = stack.enter_context(socket.socket(socket.AF_UNIX))
            engine.connect(ENGINE)
            back = threading.Thread(target=self._pump, args=(engine, client), daemon=True)
            back.start()
            self._pump(client, engine)
            back.join()

    def _pump(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def forwarded(monkeypatch):
    made = []

    def forward(tls=None):
        made.append(Forwarder(tls))
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{made[-1].port}")

    yield forward
    for host in [host for host in provisioner._clients if host.startswith("tcp")]:
        provisioner._clients.pop(host).close()
    for forwarder in made:
        forwarder.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate for 127.0.0.1, its own authority, as Docker's client wants it in a folder."""
    folder = tmp_path_factory.mktemp("certificates")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(
        [*command, *files, "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"], check=True, capture_output=True
    )
    (folder / "ca.pem").write_bytes((folder / "cert.pem").read_bytes())
    return folder


async def works(session, container_of):
    details = container_of(session)
    assert details["Mounts"] == []
    assert details["Config"]["Cmd"][:2] == ["-u", "-c"]
    await session.set("context", "x" * 20_000_000)
    assert (await session.run("llm_query(context[:3]), len(context)")).value == "('XXX', 20000000)"
    assert (await session.run("print('y' * 5_000_000)")).stdout == "y" * 5_000_000 + "\n"
    assert (await session.run("while True: pass", timeout=0.5)).error.name == "KeyboardInterrupt"


async def test_over_tcp(docker_session, forwarded, container_of, gone):
    forwarded()
    async with await docker_session() as session:
        await works(session, container_of)
        name = container_of(session)["Id"]
    await gone(name)


async def test_over_tls(docker_session, forwarded, certificates, container_of, gone, monkeypatch):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # in requests they win over what Docker's client asks for
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    forwarded(server)
    async with await docker_session() as session:
        await works(session, container_of)
        name = container_of(session)["Id"]
    await gone(name)
