"""The server of `rlm view`: the page, the list of a folder's logs, and their bytes from an offset on.

It listens on loopback, and changes nothing but the notes about the runs. Other users of the machine can connect to
loopback, too: so a request needs the token (see `access`). A page of another origin could make a browser send requests,
also under a name that resolves to loopback (DNS rebinding): so a request must name this server as its host, and must
come from this page.
"""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, unquote

from rlm_kernel.errors import ConfigError, RecordingError
from rlm_kernel.untrusted import json_text
from rlm_kernel.viewer import component, pages
from rlm_kernel.viewer.access import Access
from rlm_kernel.viewer.folder import Folder
from rlm_kernel.viewer.listing import change_notes, listing
from rlm_kernel.viewer.log_source import LogOnDisk
from rlm_kernel.viewer.words import drawn

_ADDRESS = "127.0.0.1"
_NAMES = ("localhost", _ADDRESS)
_MAX_OFFSET = 18
"""Digits."""
_PIECE = 1 << 18
_MAX_LINE = 1 << 16
_MAX_SENT = {"/notes": 1 << 16, "/words": 1 << 20}
"""Bytes that a page may send, by the path that takes them."""
_MAX_DIGITS = 12
_HTML = "text/html; charset=utf-8"


class ViewerServer(ThreadingHTTPServer):
    """Serves the viewer from a thread of its own between `start` and `close`, or as a context manager.

    Args:
        folder: whose logs are shown.
        port: on loopback; 0: any that is free.
        access: the token that a reader needs; by default a new one.

    Raises:
        ConfigError: the port is taken or not allowed.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Folder, port: int, access: Access | None = None) -> None:
        self.folder = folder
        self.access = access or Access.by_token()
        self._thread = threading.Thread(target=self.serve_forever, name="rlm-viewer", daemon=True)
        try:
            super().__init__((_ADDRESS, port), _Request)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"Port {port} cannot be used ({error}): choose another one with --port; --port 0 takes any free port."
            ) from error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The port of the server."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """The address of the server. Not `localhost`: this may also be ::1, where another process may listen."""
        return f"http://{_ADDRESS}:{self.port}/"

    @property
    def url(self) -> str:
        """The address of the page with the token. It is a secret."""
        return f"{self.address}{self.access.query}{self.fragment}"

    @property
    def fragment(self) -> str:
        """The fragment of the address: what the page shows first."""
        return self.folder.fragment

    def start(self) -> None:
        """Start to answer requests."""
        self._thread.start()

    def close(self) -> None:
        """Stop, and release the port."""
        if self._thread.is_alive():
            self.shutdown()
        self.server_close()


IDLE_SECONDS = 30
"""An idle connection is closed after this time, because it holds a thread and a descriptor."""


class _Request(BaseHTTPRequestHandler):
    server: ViewerServer
    server_version = "rlm-viewer"
    sys_version = ""
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        # The browser may close the connection before the end.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._answer()

    do_HEAD = do_GET  # noqa: N815 (the name is the protocol's)

    def do_POST(self) -> None:
        """Change the notes of a run, or draw words. A browser says of each POST which page it comes from."""
        self.close_connection = True  # the body may not be read
        path, _, rest = self.path.partition("?")
        allowed = self.server.access.allows(path, parse_qs(rest), self.headers.get("Cookie", ""), self.server.port)
        path = "/" + path.removeprefix(self.server.access.home).removeprefix("/")
        with suppress(BrokenPipeError, ConnectionResetError):
            body = self._body()
            if self._is_foreign() or "Origin" not in self.headers:
                self._refuse(HTTPStatus.FORBIDDEN, "This viewer answers its own page only.")
            elif not allowed:
                self._refuse_without_token()
            elif path not in _MAX_SENT:
                self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")
            elif len(body) > _MAX_SENT[path]:
                self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"At most {_MAX_SENT[path]:,} bytes can be sent.")
            else:
                self._take(path, body)

    def _body(self) -> bytes:
        """What was sent, or its beginning. It is read before an answer, as a browser expects."""
        length = self.headers.get("Content-Length", "")
        known = length.isascii() and length.isdigit() and len(length) < _MAX_DIGITS
        return self.rfile.read(min(int(length), 2 * max(_MAX_SENT.values()))) if known else b""

    def _take(self, path: str, body: bytes) -> None:
        try:
            sent = json_text.loads(body)
            if path == "/notes":
                change_notes(self.server.folder, sent)
            answer = drawn(sent) if path == "/words" else {}
        except (ConfigError, RecordingError, ValueError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        else:
            self._give(json.dumps(answer).encode(), "application/json")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the base class's)
        """Log nothing: the terminal does not show requests."""

    def _answer(self) -> None:
        path, _, rest = self.path.partition("#")[0].partition("?")
        query = parse_qs(rest)
        access = self.server.access
        if self._is_foreign():
            self._refuse(
                HTTPStatus.FORBIDDEN, f"This viewer answers requests of its own page only, at {self.server.address}"
            )
        elif not access.allows(path, query, self.headers.get("Cookie", ""), self.server.port):
            self._refuse_without_token()
        elif path == "/" and access.has_token(query):
            self._let_in()
        else:
            self._give_page("/" + path.removeprefix(access.home).removeprefix("/"), query)

    def _give_page(self, path: str, query: dict[str, list[str]]) -> None:
        if path == "/":
            self._give(pages.served_page().encode(), _HTML)
        elif path == "/viewer.js":
            self._give(component.script("page").encode(), "text/javascript; charset=utf-8")
        elif path == "/logs":
            self._give_list({name: values[-1] for name, values in query.items()})
        elif path.startswith("/logs/"):
            self._give_log(unquote(path.removeprefix("/logs/")), query)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")

    def _let_in(self) -> None:
        """Set the cookie, and redirect to the page, whose address has no token."""
        target = f"{self.server.access.home}{self.server.fragment}"
        headers = {"Set-Cookie": self.server.access.cookie(self.server.port)}
        if self.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
            self._head(HTTPStatus.SEE_OTHER, _HTML, 0, {**headers, "Location": target})
        else:
            # A browser that comes from another page, such as the file that `rlm view` opens, would not send the cookie
            # after a redirection. After a page of this server it does.
            self._head(HTTPStatus.OK, _HTML, 0, {**headers, "Refresh": f"0; url={target}"})

    def _refuse_without_token(self) -> None:
        if "text/html" not in self.headers.get("Accept", ""):
            self._refuse(HTTPStatus.FORBIDDEN, "The token is missing: open the address that `rlm view` printed.")
            return
        policy = {"Content-Security-Policy": pages.locked_policy()}
        self._give(pages.locked().encode(), _HTML, HTTPStatus.FORBIDDEN, policy)

    def _is_foreign(self) -> bool:
        """Whether the request comes from another page, or is for another host."""
        ours = {f"{name}:{self.server.port}" for name in _NAMES}
        origin = self.headers.get("Origin")
        site = self.headers.get("Sec-Fetch-Site", "none")
        followed_a_link = self.headers.get("Sec-Fetch-Mode") == "navigate"
        return (
            self.headers.get("Host", "") not in ours
            or (origin is not None and origin.removeprefix("http://") not in ours)
            or (site not in ("none", "same-origin") and not followed_a_link)
        )

    def _give_list(self, asked: dict[str, str]) -> None:
        try:
            content = json.dumps(listing(self.server.folder, asked)).encode()
        except (ConfigError, OSError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        else:
            self._give(content, "application/json")

    def _give_log(self, name: str, query: dict[str, list[str]]) -> None:
        path = self.server.folder.log(name)
        start = query.get("from", ["0"])[0]
        if path is None:
            self._refuse(HTTPStatus.NOT_FOUND, f"There is no log {name!r} in this folder.")
        elif not (start.isascii() and start.isdigit() and len(start) <= _MAX_OFFSET):
            self._refuse(HTTPStatus.BAD_REQUEST, "from= must be an offset in bytes.")
        else:
            self._send_from(path, int(start))

    def _send_from(self, path: Path, start: int) -> None:
        """The rest of the file as it is now. What is written later comes with the next request."""
        try:
            fresh, file = "yes" if LogOnDisk(path).fresh else "no", path.open("rb")
        except OSError as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
            return
        with file:
            line, size = file.readline(_MAX_LINE), file.seek(0, 2)
            whose = hashlib.sha256(line).hexdigest() if line.endswith(b"\n") else ""
            left = max(0, size - start)
            file.seek(min(start, size))
            about = {"X-Log-Fresh": fresh, "X-Log-First": whose, "X-Log-Size": str(size)}
            self._head(HTTPStatus.OK, "application/x-ndjson", left, about)
            while self.command == "GET" and left > 0 and (piece := file.read(min(left, _PIECE))):
                left -= len(piece)
                self.wfile.write(piece)

    def _give(
        self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, more: dict[str, str] | None = None
    ) -> None:
        self._head(status, kind, len(content), more)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._give(why.encode("utf-8", "replace"), "text/plain; charset=utf-8", status)

    def _head(self, status: HTTPStatus, kind: str, length: int, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**_ALWAYS, "Content-Type": kind, "Content-Length": str(length), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()


_ALWAYS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": pages.served_policy(),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
