"""Who may read what the viewer's server hands out.

Loopback is open to every user of the machine, and a log may lie in a folder that is closed to them. So a server makes a
token, and only who has it gets anything. A browser brings it once, in the address that `rlm view` opens or prints, and
gets a cookie for it. The page lies below a path that nobody can guess, and the cookie is for that path: a cookie has no
port, so a browser would otherwise show it to the servers of other users on this machine, too.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PARAMETER = "token"
"""How the token is called in an address."""


@dataclass(frozen=True, slots=True)
class Access:
    """The way in of one server. Without a token everybody may read.

    Attributes:
        token: what a browser has to bring.
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
        """What an address needs, to be let in."""
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
        """The `Set-Cookie` header of a browser that is let in: until it is closed, and for this page only."""
        return f"{_name(port)}={self.token}; Path={self.home}; HttpOnly; SameSite=Strict"

    def _in(self, cookies: str, port: int) -> bool:
        pairs = (pair.strip().partition("=") for pair in cookies.split(";"))
        return any(name == _name(port) and self._is_token(value) for name, _, value in pairs)

    def _is_token(self, text: str) -> bool:
        return self.token is not None and secrets.compare_digest(text.encode("utf-8", "replace"), self.token.encode())


def _name(port: int) -> str:
    return f"rlm-viewer-{port}"
