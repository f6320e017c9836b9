"""Servers on 127.0.0.1 that note all that reaches them, and what an SDK may read from the environment."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import pytest
from backends_on_loopback import MODELS, installed
from loopback import MODEL
from outside import OutsideNetworkError

from rlm_kernel.clients.backends import BACKENDS
from rlm_kernel.clients.registry import build
from rlm_kernel.clients.variables import environment_variables
from rlm_kernel.errors import ConfigError, LMError

KEY = "sk-key-of-the-user-0123456789"
OTHER_KEY = "sk-key-of-the-folder-9876543210"
INPUT = "the input of the user"
QUESTION = [{"role": "user", "content": INPUT}]
ELSEWHERE = "http://provider.test/v1"

_VARIABLE = re.compile(
    r"""["']((?:ANTHROPIC|AWS|AZURE|GOOGLE|CLOUD_ML|LITELLM|OLLAMA|OPENAI|OPENROUTER|PORTKEY)_[A-Z][A-Z_]+)["']"""
)
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")

each_backend = pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=name, marks=[] if installed(name) else pytest.mark.skip(f"the extra {name!r} is missing"))
        for name, row in BACKENDS.items()
    ],
)


class Listener:
    """A server that notes each request as it came: method, path, headers and body in one text."""

    def __init__(self, status: int = 400, location: str | None = None) -> None:
        self.seen: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.seen, status, location))
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def got(self, text: str) -> bool:
        return any(text in request for request in self.seen)


def _handler(seen: list[str], status: int, location: str | None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
            pass

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode(errors="replace")
            seen.append(f"{self.command} {self.path}\n{self.headers}\n{body}")
            self.send_response(status)
            if location:
                self.send_header("location", location + self.path)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def __getattr__(self, name: str) -> Callable[[], None]:
            if name.startswith("do_"):  # any method
                return self.answer
            raise AttributeError(name)

    return Handler


def write_env_file(**variables: str | None) -> None:
    """The `.env` of the working folder."""
    lines = [f"{name}='{value}'\n" for name, value in variables.items() if name and value is not None]
    Path(".env").write_text("".join(lines))


def model_of(row: Any) -> str:
    return MODELS.get(row.name, MODEL)


async def ask(row: Any, backend_kwargs: dict[str, Any]) -> None:
    """Ask a model of the backend with the variables of the process and of the working folder's `.env`.

    Raises:
        ConfigError: the client was refused.
        LMError: there is no answer, as from a `Listener`.
    """
    lm = build(row.name, {"model_name": model_of(row), "max_retries": 0, **backend_kwargs}, environment_variables())
    try:
        await lm.complete(QUESTION)
    finally:
        await lm.close()


async def refusal(asked: Callable[[], Any]) -> str:
    """What is said when it is asked: it was refused, got no answer, or was kept from leaving this machine."""
    with pytest.raises((ConfigError, LMError, OutsideNetworkError)) as caught:
        await asked()
    return str(caught.value)


@cache
def variables_of_sdks() -> tuple[str, ...]:
    """The names of environment variables that stand in the source of the SDKs."""
    found = set(PROXIES)
    for package in ("openai", "anthropic", "portkey_ai", "litellm"):
        spec = find_spec(package)
        for folder in spec.submodule_search_locations or [] if spec else []:
            for file in Path(folder).rglob("*.py"):
                if "proxy" not in file.parts:
                    found |= set(_VARIABLE.findall(file.read_text("utf-8", "replace")))
    return tuple(sorted(found))
