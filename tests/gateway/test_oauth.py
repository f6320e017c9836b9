"""The gateway as an OAuth resource server, with an authorization server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time

import httpx2
import jwt
import pytest
from gateway.authorization_server import CLIENT, GATEWAY, AuthorizationServer, new_key
from gateway.gateway_process import COMMAND, KEY, call, http_server, options, over_http, smoke
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider

from rlm_kernel.gateway.oauth import MAX_CONNECTIONS, OAuth, discover


class Storage:
    """Keeps the tokens of the official client."""

    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


@contextlib.contextmanager
def protected(server, repository, tmp_path, *more, key=""):
    """A gateway that takes the tokens of the server: its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/mcp"
    oauth = ["--port", str(port), "--url", url, "--oauth-issuer", server.issuer]
    with http_server(repository, tmp_path, *oauth, *more, key=key) as listening:
        assert listening == url
        yield url


@pytest.mark.parametrize("opaque", [False, True], ids=["jwt", "introspection"])
async def test_the_official_client_finds_the_server_gets_a_token_and_reads(repository, tmp_path, monkeypatch, opaque):
    if opaque:
        monkeypatch.setenv("RLM_GATEWAY_OAUTH_CLIENT_ID", GATEWAY[0])
        monkeypatch.setenv("RLM_GATEWAY_OAUTH_CLIENT_SECRET", GATEWAY[1])
    with AuthorizationServer(opaque=opaque) as server, protected(server, repository, tmp_path, key=KEY) as url:
        auth = ClientCredentialsOAuthProvider(url, Storage(), *CLIENT, issuer=server.issuer)
        async with over_http(url, auth=auth) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            session = await smoke(client)
        assert server.asked[0]["resource"] == url
        assert set(server.asked[0]["scope"].split()) == {"read", "exec", "complete"}
        assert ("rlm.fs.list" in names, "rlm.exec.run" in names) == (True, False)
        async with over_http(url) as client:  # keys go on to be accepted
            assert (await call(client, "rlm.provenance.report", session_id=session))["error"] == "Session not found"
            await smoke(client)


async def test_a_401_names_the_metadata_and_the_metadata_the_server(repository, tmp_path):
    with AuthorizationServer() as server, protected(server, repository, tmp_path) as url:
        async with httpx2.AsyncClient() as http:
            refused = await http.post(url)
            about = url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")
            assert refused.status_code == 401
            assert f'resource_metadata="{about}"' in refused.headers["WWW-Authenticate"]
            metadata = (await http.get(about)).json()
    assert metadata["resource"] == url
    assert metadata["authorization_servers"] == [server.issuer]
    assert metadata["scopes_supported"] == ["read", "exec", "complete"]


async def test_a_token_is_refused_unless_all_of_it_is_right(repository, tmp_path):
    with AuthorizationServer() as server, protected(server, repository, tmp_path) as url:
        tokens = {
            "good": server.jwt(url),
            "list": server.jwt(["https://other.example", url], scope=None, scp=["read"]),
            "audience": server.jwt("https://other.example/mcp"),
            "no audience": server.jwt(None),
            "issuer": server.jwt(url, iss="https://evil.example"),
            "expired": server.jwt(url, exp=int(time.time()) - 5),
            "endless": server.jwt(url, exp=None),
            "nobody": server.jwt(url, sub=None),
            "signature": server.jwt(url, key=new_key()),
            "text": "no token",
        }
        async with httpx2.AsyncClient() as http:
            statuses = {
                name: (await http.post(url, headers={"Authorization": f"Bearer {token}"})).status_code
                for name, token in tokens.items()
            }
    assert statuses == dict.fromkeys(tokens, 401) | {"good": 400, "list": 400}


async def test_an_introspected_token_must_be_active_and_for_the_gateway(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("RLM_GATEWAY_OAUTH_CLIENT_ID", GATEWAY[0])
    monkeypatch.setenv("RLM_GATEWAY_OAUTH_CLIENT_SECRET", GATEWAY[1])
    with AuthorizationServer() as server, protected(server, repository, tmp_path) as url:
        server.issued = {
            "good": {"active": True, **server.claims(url, iss=None)},
            "other": {"active": True, **server.claims("https://other.example")},
            "revoked": {"active": False, **server.claims(url)},
            "truthy": {"active": "true", **server.claims(url)},
        }
        async with httpx2.AsyncClient() as http:
            statuses = {
                token: (await http.post(url, headers={"Authorization": f"Bearer {token}"})).status_code
                for token in [*server.issued, "unknown"]
            }
    assert statuses == {"good": 400, "other": 401, "revoked": 401, "truthy": 401, "unknown": 401}


@pytest.mark.parametrize(
    ("more", "words"),
    [(["--oauth-issuer", "ISSUER"], "OAuth needs --url"), (["--oauth-issuer", "ISSUER/", "--url", "URL"], "spell")],
)
def test_a_gateway_that_cannot_verify_tokens_does_not_start(repository, tmp_path, more, words):
    with AuthorizationServer() as server:
        url = "http://127.0.0.1:1/mcp"
        given = [word.replace("ISSUER", server.issuer).replace("URL", url) for word in more]
        command = [*COMMAND, "--mode", "http", "--port", "0", *options(repository, tmp_path, *given)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, words in done.stderr) == (2, True)


async def test_a_flood_of_bad_tokens_is_asked_about_once_each_over_few_connections():
    with AuthorizationServer() as server:
        tokens = await discover(OAuth(server.issuer, "https://us.example", "https://us.example", GATEWAY))
        flood = [f"bad {number}" for number in range(60)]
        assert not any(await asyncio.gather(*map(tokens.verify_token, flood)))
        assert not any(await asyncio.gather(*map(tokens.verify_token, flood)))
        assert sorted(token for token, _ in server.introspected) == sorted(flood)
        assert max(connections for _, connections in server.introspected) <= 2 * MAX_CONNECTIONS
        server.issued["good"] = {"active": True, **server.claims("https://us.example")}
        assert await tokens.verify_token("good")
        server.issued.clear()  # a revoked token is refused at once
        assert await tokens.verify_token("good") is None


async def test_what_is_said_about_refused_tokens_is_one_line(capsys):
    with AuthorizationServer() as server:
        tokens = await discover(OAuth(server.issuer, "https://us.example", "https://us.example"))
        for number in range(5):
            evil = jwt.encode({"sub": "x"}, server.key, "RS256", {"kid": f"{number}\nrlm: gateway: all is well"})
            assert await tokens.verify_token(evil) is None
    assert capsys.readouterr().err.count("\n") == 1
