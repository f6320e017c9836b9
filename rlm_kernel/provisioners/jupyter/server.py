"""A Jupyter server over HTTP: start and end a kernel, and open its WebSocket. Errors never contain the token."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import aiohttp

from rlm_kernel.errors import ConfigError, KernelError
from rlm_kernel.provisioners.jupyter.wire import SUBPROTOCOL

REQUEST_SECONDS = 60.0
END_SECONDS = 10.0
MAX_MESSAGE_BYTES = 2**28
"""Of a message of the kernel. A WebSocket message is held as a whole."""
PING_SECONDS = 20.0
"""A connection that does not answer a ping within half of that is cut."""
MAX_ANSWER_BYTES = 2**20
SHOWN_CHARACTERS = 300
REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
LOGIN = range(300, 400)
"""A page to log in at."""


class GoneError(KernelError):
    """The server no longer has the kernel."""


class Server:
    """One Jupyter server. Made and used in the engine's loop.

    Args:
        url: its base URL.
        token: sent as a header; None: the server needs none.
        connect_timeout: seconds in which the server must answer before a kernel is asked for.
    """

    def __init__(self, url: str, token: str | None, connect_timeout: float) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._connect_timeout = connect_timeout
        headers = {} if token is None else {"Authorization": f"token {token}"}
        self._http = aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS))

    async def start_kernel(self, name: str | None) -> str:
        """Start a kernel of this kernelspec, or of the server's default one. Returns its id.

        Raises:
            ConfigError: the token is refused, or there is no such kernelspec or server.
            KernelError: the server cannot be reached, or failed.
        """
        await self._check_presence()
        # Enterprise Gateway refuses requests without the name of a user.
        body = {"env": {"KERNEL_USERNAME": "rlm"}, **({} if name is None else {"name": name})}
        try:
            answer = await self._request("POST", "/api/kernels", json=body)
        except KernelError:
            if name is not None:
                await self._check_name(name)
            raise
        try:
            return str(answer["id"])
        except (TypeError, KeyError) as error:
            raise ConfigError(f"{self._url} is not a Jupyter server: its answer has no kernel id.") from error

    async def _check_presence(self) -> None:
        """Raise `KernelError` if the server is silent. To start a kernel may take much longer than an answer."""
        timeout = aiohttp.ClientTimeout(total=self._connect_timeout)
        try:
            async with self._http.get(f"{self._url}/api", allow_redirects=False, timeout=timeout):
                return
        except TimeoutError:
            raise KernelError(
                f"{self._url} did not answer within {self._connect_timeout:g} s: is the Jupyter server running? "
                "If it is slow, raise environment_kwargs={'connect_timeout': ...}."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from None

    async def _check_name(self, name: str) -> None:
        """Raise `ConfigError` if the server lists its kernelspecs, and this one is not among them."""
        try:
            known = sorted((await self._request("GET", "/api/kernelspecs"))["kernelspecs"])
        except (KernelError, ConfigError, TypeError, KeyError):
            return
        if name not in known:
            names = self.without_token(", ".join(map(repr, known)))[:SHOWN_CHARACTERS]
            raise ConfigError(f"{self._url} has no kernelspec {name!r}: set 'kernel_name' to one of {names}.")

    async def end_kernel(self, kernel: str) -> None:
        """End a kernel, if the server can be reached and has it."""
        with contextlib.suppress(ConfigError, KernelError, TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self._request("DELETE", f"/api/kernels/{quote(kernel)}")

    async def connect(self, kernel: str, session: str) -> aiohttp.ClientWebSocketResponse:
        """Open the WebSocket of a kernel. With the id of an earlier session, the server sends what it kept for it.

        Raises:
            GoneError: the server has no such kernel.
            ConfigError: the token is refused, or the server does not speak the subprotocol.
            KernelError: the server cannot be reached.
        """
        url = f"{self._url}/api/kernels/{quote(kernel)}/channels?session_id={quote(session)}"
        try:
            connected = await self._http.ws_connect(
                url, protocols=[SUBPROTOCOL], heartbeat=PING_SECONDS, max_msg_size=MAX_MESSAGE_BYTES
            )
        except aiohttp.WSServerHandshakeError as error:
            raise self._refusal(error.status, "") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from None
        if connected.protocol != SUBPROTOCOL:
            await connected.close()
            raise ConfigError(f"{self._url} does not speak {SUBPROTOCOL}: it needs jupyter_server 1.17 or newer.")
        return connected

    @property
    def is_open(self) -> bool:
        """Whether it was not closed."""
        return not self._http.closed

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        await self._http.close()

    async def _request(self, method: str, path: str, **options: Any) -> Any:
        try:
            async with self._http.request(method, self._url + path, allow_redirects=False, **options) as response:
                body = await self._body(response)
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    raise self._refusal(response.status, body.decode("utf-8", "replace"))
                return json.loads(body) if body else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
            if isinstance(error, ConfigError):
                raise
            raise self._unreachable(error) from None

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise KernelError(f"{self._url} sent more than {MAX_ANSWER_BYTES:,} bytes: is it a Jupyter server?")
        return bytes(body)

    def without_token(self, text: str) -> str:
        """What a server says, which may repeat the request."""
        return text.replace(self._token, "[token]") if self._token else text

    def _refusal(self, status: int, text: str) -> ConfigError | KernelError:
        if status in REFUSED or status in LOGIN:
            return ConfigError(
                f"{self._url} does not accept the token (status {status}): give environment_kwargs={{'token': ...}}, "
                "or set JUPYTER_TOKEN."
            )
        if status == HTTPStatus.NOT_FOUND:
            return GoneError(f"{self._url} has no such kernel, or is not a Jupyter server (status 404).")
        said = " ".join(self.without_token(text).split())[:SHOWN_CHARACTERS]
        return KernelError(
            f"{self._url} did not start the kernel (status {status}): {said or 'no reason given'}. "
            "Its kernelspecs are listed at /api/kernelspecs; choose one by environment_kwargs={'kernel_name': ...}."
        )

    def _unreachable(self, error: Exception) -> KernelError:
        return KernelError(
            f"{self._url} cannot be reached ({type(error).__name__}): is the Jupyter server running, and the URL right?"
        )


def acknowledge_at_once(connected: aiohttp.ClientWebSocketResponse) -> None:
    """Keep the system from delaying TCP acknowledgements: a server with Nagle's algorithm waits 40 ms for each."""
    opened = connected.get_extra_info("socket")
    if opened is not None and hasattr(socket, "TCP_QUICKACK"):
        with contextlib.suppress(OSError):  # a closed socket
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
