"""Access control of the viewer's server.

Every user of the machine can connect to loopback, but may not be allowed to read the folder of the logs. So the server
makes a token and answers only requests with this token. A browser sends it once, in the address that `rlm view` opens
or prints, and gets a cookie. The path of the page is random and the cookie is valid for that path only: cookies do not
depend on the port, so a browser would otherwise send it to the servers of other users on this machine, too.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PARAMETER = "token"
"""The name of the token in an address."""


@dataclass(frozen=True, slots=True)
class Access:
    """The access of one server. Without a token every user may read.

    Attributes:
        token: that a browser has to send.
        home: the path of the page; it ends with a slash.
    """

    token: str | None = field(default=None, repr=False)
    home: str = "/"

    @classmethod
    def by_token(cls) -> Access:
        """A new token, and a new path."""
        return cls(secrets.token_urlsafe(32), f"/{secrets.token_hex(8)}/")

    @property
    def query(self) -> str:
        """The query of an address with the token."""
        return "" if self.token is None else f"?{PARAMETER}={self.token}"

    def allows(self, path: str, query: Mapping[str, Sequence[str]], cookies: str, port: int) -> bool:
        """Whether a request may be answered.

        Args:
            path: of the request.
            query: its parameters.
            cookies: its `Cookie` header, or an empty string.
            port: of the server.
        """
        return self.token is None or self.has_token(query) or (path.startswith(self.home) and self._in(cookies, port))

    def has_token(self, query: Mapping[str, Sequence[str]]) -> bool:
        """Whether the parameters of a request hold the token."""
        return self._is_token(query.get(PARAMETER, [""])[0])

    def cookie(self, port: int) -> str:
        """The `Set-Cookie` header for a browser with the token: for this session and this page only."""
        return f"{_name(port)}={self.token}; Path={self.home}; HttpOnly; SameSite=Strict"

    def _in(self, cookies: str, port: int) -> bool:
        pairs = (pair.strip().partition("=") for pair in cookies.split(";"))
        return any(name == _name(port) and self._is_token(value) for name, _, value in pairs)

    def _is_token(self, text: str) -> bool:
        return self.token is not None and secrets.compare_digest(text.encode("utf-8", "replace"), self.token.encode())


def _name(port: int) -> str:
    return f"rlm-viewer-{port}"
