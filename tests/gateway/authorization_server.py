"""An authorization server on loopback: metadata (RFC 8414), tokens (JWT), keys (JWKS), introspection (RFC 7662)."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

CLIENT = ("editor", "secret-of-the-editor")
GATEWAY = ("gateway", "secret-of-the-gateway")


def new_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _basic(request):
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    return tuple(base64.b64decode(value).decode().split(":", 1)) if kind == "Basic" else None


class AuthorizationServer:
    """As a context manager. `issued`: opaque tokens and what introspection tells of them."""

    def __init__(self, scope="read", *, opaque=False):
        self.key, self.scope, self.opaque = new_key(), scope, opaque
        self.issued = {}
        self.asked = []
        self.introspected = []
        routes = [
            Route("/.well-known/oauth-authorization-server/realm", self._metadata),
            Route("/realm/jwks", self._jwks),
            Route("/realm/token", self._token, methods=["POST"]),
            Route("/realm/introspect", self._introspect, methods=["POST"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), port=0, log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self):
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.issuer = f"http://127.0.0.1:{port}/realm"
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join()

    def claims(self, audience, **changed):
        times = {"iat": int(time.time()), "exp": int(time.time()) + 600}
        about = {"iss": self.issuer, "aud": audience, "sub": "alice", "client_id": CLIENT[0], "scope": self.scope}
        return {name: value for name, value in {**about, **times, **changed}.items() if value is not None}

    def jwt(self, audience, *, key=None, **changed):
        return jwt.encode(self.claims(audience, **changed), key or self.key, "RS256", {"kid": "1", "typ": "at+jwt"})

    async def _metadata(self, _):
        ends = {"jwks_uri": "jwks", "token_endpoint": "token", "introspection_endpoint": "introspect"}
        urls = {name: f"{self.issuer}/{end}" for name, end in ends.items()}
        return JSONResponse({"issuer": self.issuer, "authorization_endpoint": f"{self.issuer}/authorize", **urls})

    async def _jwks(self, _):
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return JSONResponse({"keys": [{**public, "kid": "1", "use": "sig", "alg": "RS256"}]})

    async def _token(self, request):
        form = dict(await request.form())
        self.asked.append(form)
        if _basic(request) != CLIENT or form.get("grant_type") != "client_credentials":
            return JSONResponse({"error": "invalid_client"}, 401)
        token = secrets.token_hex(16) if self.opaque else self.jwt(form["resource"])
        self.issued[token] = {"active": True, **self.claims(form["resource"])}
        return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": 600, "scope": self.scope})

    async def _introspect(self, request):
        if _basic(request) != GATEWAY:
            return JSONResponse({"error": "invalid_client"}, 401)
        token = (await request.form())["token"]
        self.introspected.append((token, len(self._server.server_state.connections)))
        return JSONResponse(self.issued.get(token, {"active": False}))
