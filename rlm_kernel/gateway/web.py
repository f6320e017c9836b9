"""The gateway over streamable HTTP. Without a key it does not start."""

from __future__ import annotations

import hashlib
import logging
import re
import resource
import socket
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.auth.middleware.bearer_auth import RequireAuthMiddleware
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.routes import create_protected_resource_routes
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rlm_kernel import terminal
from rlm_kernel.errors import ConfigError
from rlm_kernel.gateway.gateway import Gateway
from rlm_kernel.gateway.oauth import OAuth
from rlm_kernel.gateway.server import mcp_server
from rlm_kernel.gateway.tools import SCOPES

MAX_BODY_BYTES = 1 << 20
MAX_MCP_SESSIONS = 2000
MAX_OPEN_FILES = 1 << 16
"""Connections without a key are open files too; 1024, as most systems allow at first, are soon used up."""
MAX_CREDENTIALS = 10_000
"""Whose rates are known. The one that was unused for the longest time is forgotten."""
KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep idle connections: a server that closes first can meet a request that is on its way."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_PORT = re.compile(r":\d+$")
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 (compared, not listened on)


@dataclass(frozen=True)
class Address:
    """Where to listen, and what requests must name.

    Attributes:
        hosts: values of the header Host that are answered, besides loopback.
        origins: values of the header Origin that are answered, besides loopback. No Origin is always allowed.
        certificate: files of TLS, or None.
        rate: requests per minute and key.
        oauth: the authorization server whose tokens are keys too, or None.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    certificate: Path | None = None
    certificate_key: Path | None = None
    rate: int = 3000
    oauth: OAuth | None = None


def web_app(gateway: Gateway, verifier: TokenVerifier, address: Address) -> ASGIApp:
    """The ASGI application: `/mcp` and `/metrics` with a key, `/health` without one."""

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "service": "rlm-mcp-gateway"})

    async def metrics(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(gateway.metrics())(scope, receive, send)

    auth = _auth_settings(address.oauth)
    app: Starlette = mcp_server(gateway).streamable_http_app(
        max_request_body_size=MAX_BODY_BYTES,
        max_sessions=MAX_MCP_SESSIONS,
        transport_security=TransportSecuritySettings(
            allowed_hosts=[
                *(f"{name}:*" for name in LOOPBACK),
                *address.hosts,
                *(f"{name}:*" for name in address.hosts),
            ],
            allowed_origins=[*(f"http://{name}:*" for name in LOOPBACK), *address.origins],
        ),
        host=address.host,
        auth=auth,
        token_verifier=verifier,
        custom_starlette_routes=[
            Route("/health", health),
            Route("/metrics", RequireAuthMiddleware(metrics, [])),
        ],
    )
    if auth.resource_server_url is not None:  # before the SDK's own, which names no scopes if none is required
        routes = create_protected_resource_routes(auth.resource_server_url, [auth.issuer_url], list(SCOPES))
        app.routes[:0] = routes
    return RateLimit(app, address.rate)


def _auth_settings(oauth: OAuth | None) -> AuthSettings:
    """From texts, which keep the spelling of an issuer. The SDK wants an issuer for keys too, and does not show it."""
    issuer, resource = ("http://localhost", None) if oauth is None else (oauth.issuer, oauth.resource)
    return AuthSettings.model_validate(
        {"issuer_url": issuer, "resource_server_url": resource, "validate_token_resource": False}
    )


async def serve_http(gateway: Gateway, verifier: TokenVerifier, address: Address) -> None:
    """Serve until Ctrl-C.

    Raises:
        ConfigError: the address or a file of TLS cannot be used.
    """
    logging.getLogger("mcp").setLevel(logging.ERROR)
    _warn(address)
    try:
        _allow_open_files()
        await _Announced(_config(web_app(gateway, verifier, address), address), address.hosts).serve()
    except (SystemExit, OverflowError) as error:  # the first is uvicorn's word for a port that is taken
        raise ConfigError(f"{address.host}:{address.port} cannot be used: choose another --host or --port.") from error
    finally:
        await gateway.close()


def _warn(address: Address) -> None:
    """Say what hinders clients on other hosts, or puts their keys at risk."""
    if address.host in (*LOOPBACK, "::1"):
        return
    if address.certificate is None:
        terminal.print_note("rlm: gateway: keys travel without TLS: use --tls-cert, or a proxy that has it")
    if not address.hosts:
        terminal.print_note(
            "rlm: gateway: only requests to localhost are answered, others get 421: name the host in the URL of your "
            f"clients, such as --allow-host {socket.gethostname()}"
        )


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _config(app: ASGIApp, address: Address) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        host=address.host,
        port=address.port,
        log_level="error",
        access_log=False,
        server_header=False,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.certificate_key,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    try:
        config.load()
    except (OSError, AssertionError) as error:  # the second: a key without a certificate
        why = str(error) or "one is missing"
        raise ConfigError(
            f"--tls-cert and --tls-key must be PEM files of a certificate and its key ({why})."
        ) from error
    return config


class _Announced(uvicorn.Server):
    """Prints its address when it listens, with a name that it answers to."""

    def __init__(self, config: uvicorn.Config, hosts: Sequence[str]) -> None:
        super().__init__(config)
        self._hosts = hosts

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for one in server.sockets:
                scheme = "https" if self.config.is_ssl else "http"
                terminal.print_result(f"{scheme}://{self._name(*one.getsockname()[:2])}/mcp")

    def _name(self, host: str, port: int) -> str:
        if host in EVERY_ADDRESS:
            host = self._hosts[0] if self._hosts else LOOPBACK[0]
        elif ":" in host:
            host = f"[{host}]"
        return host if _PORT.search(host) else f"{host}:{port}"


class RateLimit:
    """Answers 429 to a bearer token that sends more requests than allowed. A minute's worth may come at once.

    Requests without one pass: they get no further than to /health, to metadata or to a 401.
    """

    def __init__(self, app: ASGIApp, per_minute: int) -> None:
        self._app = app
        self._per_minute = per_minute
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or self._may_pass(scope):
            await self._app(scope, receive, send)
        else:
            wait = {"Retry-After": str(max(60 // self._per_minute, 1))}
            await PlainTextResponse("Too many requests", 429, wait)(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        kind, token = _bearer(scope)
        if kind != "bearer":
            return True
        credential = hashlib.sha256(token.encode("latin-1")).digest()
        now = time.monotonic()
        left, at = self._buckets.pop(credential, (float(self._per_minute), now))
        left = min(left + (now - at) * self._per_minute / 60, float(self._per_minute))
        allowed = left >= 1
        self._buckets[credential] = (left - allowed, now)
        if len(self._buckets) > MAX_CREDENTIALS:
            self._buckets.popitem(last=False)
        return allowed


def _bearer(scope: Scope) -> tuple[str, str]:
    """The kind of the credential in lower case, and the credential: read as the authentication of the SDK does."""
    kind, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
    return kind.lower(), token
