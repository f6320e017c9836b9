"""OAuth: access tokens of an authorization server, verified with its keys (JWT) or by asking it (RFC 7662)."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx2
import jwt
from mcp.client.auth.utils import build_oauth_authorization_server_metadata_discovery_urls
from mcp.server.auth.provider import AccessToken, TokenVerifier

from rlm_kernel import terminal
from rlm_kernel.errors import ConfigError
from rlm_kernel.gateway.tools import SCOPES

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
REQUIRED = ["exp", "iss", "aud", "sub"]
SECONDS = 10
MAX_CONNECTIONS = 10
"""To the introspection endpoint: a flood of tokens waits here, and does not reach the server all at once."""
REFUSED_SECONDS = 30
"""A token that is not active is not asked about again for so long."""
MAX_REFUSED = 10_000
"""Of these tokens. The oldest is forgotten."""
MAX_DECODING = 4
"""Threads that verify JWTs. They wait while the server gives no keys, and the threads of tools do not."""
MAX_WHY = 300
_TROUBLE = (jwt.PyJWTError, httpx2.HTTPError, OSError, TypeError, ValueError)


@dataclass(frozen=True)
class OAuth:
    """An authorization server, and the gateway as it knows it.

    Attributes:
        issuer: URL of the server.
        resource: URL of the gateway, as clients name it.
        audience: what tokens for the gateway name; usually the resource.
        credentials: client id and secret of the gateway. With them each token is introspected; without, it is a JWT.
    """

    issuer: str
    resource: str
    audience: str
    credentials: tuple[str, str] | None = field(default=None, repr=False)


class Tokens:
    """Verifies access tokens, for the authentication of the SDK.

    Args:
        oauth: the authorization server.
        endpoint: its `introspection_endpoint` if there are credentials, else its `jwks_uri`.
    """

    def __init__(self, oauth: OAuth, endpoint: str) -> None:
        self._oauth = oauth
        self._endpoint = endpoint
        self._keys = jwt.PyJWKClient(endpoint, timeout=SECONDS)
        self._notes = _Notes()
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._threads = ThreadPoolExecutor(MAX_DECODING, "rlm-tokens")
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)
        self._ssl = ssl.create_default_context()  # slow to make

    async def verify_token(self, token: str) -> AccessToken | None:
        """The owner of a token that was issued for the gateway and is valid, or None."""
        try:
            if self._oauth.credentials is None:
                claims = await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, token)
            else:
                claims = await self._ask(token)
            self._check(claims)
            return AccessToken(
                token="",
                client_id=str(claims.get("client_id") or claims.get("azp") or claims["sub"]),
                scopes=_scopes(claims),
                expires_at=int(claims["exp"]),
                subject=str(claims["sub"]),
                claims={"iss": self._oauth.issuer},
            )
        except _TROUBLE as error:
            self._notes.print(f"a token was refused: {type(error).__name__}: {error}")
            return None

    def _decode(self, token: str) -> dict[str, Any]:
        key = self._keys.get_signing_key_from_jwt(token)
        claims: dict[str, Any] = jwt.decode(token, key, ALGORITHMS, audience=self._oauth.audience)
        return claims

    async def _ask(self, token: str) -> dict[str, Any]:
        known = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        if time.monotonic() - self._refused.get(known, -float(REFUSED_SECONDS)) < REFUSED_SECONDS:
            raise jwt.InvalidTokenError("the token is not active")
        form = {"token": token, "token_type_hint": "access_token"}
        http = httpx2.AsyncClient(timeout=SECONDS, auth=self._oauth.credentials, verify=self._ssl)
        async with asyncio.timeout(SECONDS), self._room, http:
            reply = (await http.post(self._endpoint, data=form)).raise_for_status().json()
        if not isinstance(reply, dict) or reply.get("active") is not True:
            self._refused[known] = time.monotonic()
            self._refused.move_to_end(known)
            if len(self._refused) > MAX_REFUSED:
                self._refused.popitem(last=False)
            raise jwt.InvalidTokenError("the token is not active")
        return {"iss": self._oauth.issuer, **reply}

    def _check(self, claims: dict[str, Any]) -> None:
        missing = [name for name in REQUIRED if not claims.get(name)]
        if missing:
            raise jwt.MissingRequiredClaimError(missing[0])
        named = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        if self._oauth.audience not in named:
            raise jwt.InvalidAudienceError(f"the token is for {named}")
        if claims["iss"] != self._oauth.issuer:
            raise jwt.InvalidIssuerError(f"the token is of {claims['iss']!r}")


class _Notes:
    """Lines on stderr about what is refused, one in `SECONDS`: anyone can send any number of keys, with any text."""

    def __init__(self) -> None:
        self._printed_at = -float(SECONDS)

    def print(self, why: str) -> None:
        if time.monotonic() - self._printed_at >= SECONDS:
            self._printed_at = time.monotonic()
            terminal.print_note(f"rlm: gateway: {' '.join(why.split())[:MAX_WHY]}")


class AnyOf:
    """Accepts what one of several verifiers accepts, and says on stderr that others were refused."""

    def __init__(self, verifiers: Sequence[TokenVerifier]) -> None:
        self._verifiers = verifiers
        self._notes = _Notes()

    async def verify_token(self, token: str) -> AccessToken | None:
        """The owner of a token, or None."""
        for verifier in self._verifiers:
            if found := await verifier.verify_token(token):
                return found
        self._notes.print("a request was refused (401): its key is not one of this gateway")
        return None


async def discover(oauth: OAuth) -> Tokens:
    """The verifier of an authorization server, from the server's metadata (RFC 8414, or OpenID Connect).

    Raises:
        ConfigError: the server cannot be reached, or does not offer what is needed.
    """
    wanted = "jwks_uri" if oauth.credentials is None else "introspection_endpoint"
    for url in build_oauth_authorization_server_metadata_discovery_urls(oauth.issuer, oauth.resource):
        metadata = await _metadata(url)
        if metadata.get("issuer") == oauth.issuer and metadata.get(wanted):
            return Tokens(oauth, str(metadata[wanted]))
    raise ConfigError(
        f"{oauth.issuer} has no metadata with this issuer and a {wanted!r}: spell --oauth-issuer as the server does."
    )


async def _metadata(url: str) -> dict[str, Any]:
    try:
        async with httpx2.AsyncClient(timeout=SECONDS) as http:
            found = (await http.get(url)).raise_for_status().json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _scopes(claims: dict[str, Any]) -> list[str]:
    """Ours among those of a token: the claim `scope`, or `scp` of Okta and Entra, as text or list."""
    given = claims.get("scope") or claims.get("scp") or ""
    words = given.split() if isinstance(given, str) else given
    return [scope for scope in SCOPES if scope in words]
