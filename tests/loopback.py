"""A model provider on 127.0.0.1 with the wire formats of OpenAI and Anthropic, which answers what a test tells it to.

    with LoopbackProvider(["```repl\\nprint(len(context))\\n```", "FINAL(42)"]) as provider:
        RLM(backend="openai", backend_kwargs=provider.backend_kwargs)

The script is a list, taken in the order in which requests arrive, or a function from a `Request` to a step.
It is an attribute and may be replaced at any time. A step is a str or one of:

    Says("text", usage=(3, 5), cost=0.01)     a reply; streamed when the request asks for it
    Says("text", breaks_after=1)              ... whose connection is closed after that many pieces
    Fails(429, "Slow down", retry_after=0)    an HTTP error with OpenAI's error body
    Sends(b"<html>", content_type="text/html")   any bytes: malformed JSON, no choices, a web page
    Hangs()                                   no answer until the client goes away or the provider is closed
    Hangs(then="text")                        ... or until `provider.release()`

It answers at `/v1/chat/completions`, as OpenAI's Responses API at `/v1/responses` (`loopback_responses`) and, in
Anthropic's words, at `/v1/messages`. `GET /v1/models` gives the list
`models`, fails while it is None, or hangs as long as `models_hang` is true, and is counted in `lookups`.

`requests` holds what was asked; `wait_for_requests(n)`, `wait_for_lookups(n)` and `wait_for_disconnects(n)` wait for
the n-th (in a coroutine: with `asyncio.to_thread`). A finished script, or one that raises, answers 400. Usage is
counted in words unless a step says it.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

import loopback_messages
import loopback_responses

MODEL = "loopback-model"
API_KEY = "loopback-key"


@dataclass(frozen=True)
class Request:
    """A request as it arrived. `body` is the decoded JSON; header names are lower case."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return loopback_responses.text_of(self.body) if self.is_responses else self.body["messages"]

    @property
    def prompt(self) -> str:
        """The last message's text."""
        return loopback_messages.text_of(self.messages[-1]["content"])

    @property
    def said(self) -> str:
        """The whole conversation, one message after another."""
        system = self.body.get("system", "") if self.is_anthropic else ""
        return "\n".join(map(loopback_messages.text_of, [system, *(m["content"] for m in self.messages)]))

    @property
    def is_anthropic(self) -> bool:
        return self.path.partition("?")[0] == loopback_messages.PATH

    @property
    def is_responses(self) -> bool:
        return self.path.partition("?")[0] == loopback_responses.PATH

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))


@dataclass(frozen=True)
class Says:
    """A reply.

    Attributes:
        text: the content; None is JSON's null.
        usage: input and output tokens; None leaves the usage out.
        written: how many of the input tokens were put into the cache (Anthropic).
        fields: merged into the assistant's message, for example ``{"refusal": "No."}`` (OpenAI).
        blocks: content before the text, for example ``{"type": "thinking", ...}`` (Anthropic).
        delay: seconds before each piece.
        breaks_after: how many pieces (a streamed reply) or whether any bytes (a whole one) come before the
            connection is closed.
    """

    text: str | None
    usage: tuple[int, int] | Literal["words"] | None = "words"
    cached: int = 0
    written: int = 0
    cost: float | None = None
    finish_reason: str | None = "stop"
    model: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[Mapping[str, Any], ...] = ()
    delay: float = 0.0
    breaks_after: int | None = None

    @property
    def pieces(self) -> list[str]:
        return re.findall(r"\s*\S+\s*", self.text or "") or [self.text or ""]


@dataclass(frozen=True)
class Fails:
    """An HTTP error with OpenAI's error body, or with `body` as it is."""

    status: int
    message: str = "It failed."
    code: str | None = None
    type: str | None = None
    retry_after: float | None = None
    request_id: str = "req_loopback"
    body: Any = None


@dataclass(frozen=True)
class Sends:
    """Any bytes with any status."""

    payload: bytes
    status: int = 200
    content_type: str = "application/json"


@dataclass(frozen=True)
class Hangs:
    """No answer until `release()` (then that step follows, if there is one), or until somebody gives up."""

    then: Step | None = None


Step = str | Says | Fails | Sends | Hangs
Script = Callable[[Request], Step] | Iterable[Step]


class LoopbackProvider:
    """See the module's docstring. Serves from the first moment until `close()`."""

    def __init__(self, script: Script = ()) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.disconnects = 0
        self.models: list[dict[str, Any]] | None = None
        self.models_hang = False
        self.lookups = 0
        self._changed = threading.Condition()
        self._wakers = socket.socketpair()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def script(self) -> Callable[[Request], Step]:
        return self._script

    @script.setter
    def script(self, script: Script) -> None:
        self._script = script if callable(script) else _from_list(script)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self._server.server_port

    @property
    def backend_kwargs(self) -> dict[str, Any]:
        """What `RLM(backend="openai", backend_kwargs=...)` needs to ask this provider."""
        return {"model_name": MODEL, "api_key": API_KEY, "base_url": self.base_url}

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which another process asks this provider."""
        return {"OPENAI_API_KEY": API_KEY, "OPENAI_BASE_URL": self.base_url}

    def wait_for_requests(self, count: int, timeout: float = 20.0) -> None:
        self._wait(lambda: len(self.requests) >= count, f"{count} requests", timeout)

    def wait_for_disconnects(self, count: int = 1, timeout: float = 20.0) -> None:
        self._wait(lambda: self.disconnects >= count, f"{count} disconnects", timeout)

    def wait_for_lookups(self, count: int = 1, timeout: float = 20.0) -> None:
        self._wait(lambda: self.lookups >= count, f"{count} lookups", timeout)

    def release(self) -> None:
        """Let every `Hangs` go on, those that come later too."""
        self._wakers[0].close()

    def close(self) -> None:
        """Close all connections and end all threads."""
        self.release()
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()
        self._wakers[1].close()

    def _wait(self, happened: Callable[[], bool], what: str, timeout: float) -> None:
        with self._changed:
            if not self._changed.wait_for(happened, timeout):
                raise AssertionError(
                    f"no {what} in {timeout} s: {len(self.requests)} requests, {self.disconnects} disconnects"
                )

    def _looked_up(self) -> None:
        with self._changed:
            self.lookups += 1
            self._changed.notify_all()

    def _next(self, request: Request) -> Step:
        # One lock for script and record: the order of the requests is the order of the script.
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
            try:
                return self._script(request)
            except Exception as error:  # noqa: BLE001 (the test's own, told to it by the client's error)
                return Fails(400, f"The script of the loopback provider raised {error!r}.")

    def _disconnected(self) -> None:
        with self._changed:
            self.disconnects += 1
            self._changed.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 1024

    def __init__(self, provider: LoopbackProvider) -> None:
        self.provider = provider
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Wake the threads that wait for the next request of a kept connection."""
        with self._lock:
            for connection in self._connections:
                _hang_up(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client may drop a kept connection; anything else is a bug of this module.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        pass

    def do_GET(self) -> None:
        provider = self.server.provider
        provider._looked_up()
        if provider.models_hang:
            self._hang()
            self.close_connection = True
            return
        try:
            if provider.models is None or not self.path.startswith("/v1/models"):
                self._fail(Fails(404, f"Unknown request URL: GET {self.path}."))
            else:
                self._send(json.dumps({"object": "list", "data": provider.models}).encode())
            self.wfile.flush()
        except ConnectionError:
            self.close_connection = True

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.path, headers, json.loads(self.rfile.read(length) or b"{}"))
        step = self.server.provider._next(request)
        while isinstance(step, Hangs):
            self.wfile.flush()
            if not self._hang() or step.then is None:
                self.close_connection = True
                return
            step = step.then
        try:
            self._answer(step, request)
            self.wfile.flush()
        except ConnectionError:
            self.close_connection = True
            self.server.provider._disconnected()

    def _hang(self) -> bool:
        """Whether it went on by `release()`; False when the client went away."""
        waker = self.server.provider._wakers[1]
        readable, _, _ = select.select([self.connection, waker], [], [])
        if self.connection in readable:
            self.server.provider._disconnected()
        return self.connection not in readable

    def _answer(self, step: Step, request: Request) -> None:
        if isinstance(step, str):
            step = Says(step)
        if isinstance(step, Says) and not (
            request.is_anthropic or request.is_responses or request.path.partition("?")[0] == "/v1/chat/completions"
        ):
            step = Fails(404, f"Unknown request URL: POST {request.path}.")
        match step:
            case Says() if request.streams:
                self._stream(step, request)
            case Says():
                self._reply(step, request)
            case Fails():
                self._fail(step, anthropic=request.is_anthropic)
            case Sends():
                self._send(step.payload, step.status, {"content-type": step.content_type})

    def _reply(self, says: Says, request: Request) -> None:
        time.sleep(says.delay)
        payload = json.dumps(_whole(says, request)).encode()
        if says.breaks_after is None:
            self._send(payload)
        else:
            self._head(200, {"content-type": "application/json", "content-length": str(len(payload))})
            self.wfile.write(payload[: says.breaks_after])
            self._break()

    def _stream(self, says: Says, request: Request) -> None:
        self._head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        texts = 0
        for event in _events(says, request):
            if texts == says.breaks_after:
                self._break()
                return
            time.sleep(says.delay)
            name = f"event: {event['type']}\n" if "type" in event else ""
            self._chunk(f"{name}data: {json.dumps(event)}\n\n".encode())
            texts += _holds_text(event)
        if not (request.is_anthropic or request.is_responses):
            self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _fail(self, fails: Fails, *, anthropic: bool = False) -> None:
        headers = {"content-type": "application/json", "x-request-id": fails.request_id, "request-id": fails.request_id}
        if fails.retry_after is not None:
            headers["retry-after"] = str(fails.retry_after)
        body = _error(fails, anthropic=anthropic) if fails.body is None else fails.body
        self._send(json.dumps(body).encode(), fails.status, headers)

    def _send(self, payload: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        kind = {"content-type": "application/json"}
        self._head(status, {**kind, **(headers or {}), "content-length": str(len(payload))})
        self.wfile.write(payload)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _chunk(self, payload: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(payload), payload))
        self.wfile.flush()

    def _break(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        _hang_up(self.connection)


def _from_list(steps: Iterable[Step]) -> Callable[[Request], Step]:
    rest = iter(steps)
    return lambda _: next(rest, Fails(400, "The script of the loopback provider has no step left."))


def _words(says: Says, request: Request) -> tuple[int, int]:
    texts = [loopback_messages.text_of(message["content"]) for message in request.messages]
    return sum(len(text.split()) for text in texts), len((says.text or "").split())


def _spent(says: Says, request: Request) -> tuple[int, int] | None:
    return _words(says, request) if says.usage == "words" else says.usage


def _usage(says: Says, request: Request) -> dict[str, Any]:
    if (spent := _spent(says, request)) is None:
        return {}
    usage: dict[str, Any] = {
        "prompt_tokens": spent[0],
        "completion_tokens": spent[1],
        "total_tokens": sum(spent),
        "prompt_tokens_details": {"cached_tokens": says.cached},
    }
    return {"usage": usage if says.cost is None else {**usage, "cost": says.cost}}


def _completion(says: Says, request: Request, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    model = says.model or request.body.get("model")
    return {"id": "chatcmpl-1", "object": kind, "created": 0, "model": model, "choices": choices}


def _whole(says: Says, request: Request) -> dict[str, Any]:
    if request.is_anthropic:
        return loopback_messages.message(says, says.model or request.body.get("model"), _spent(says, request))
    if request.is_responses:
        return loopback_responses.response(says, says.model or request.body.get("model"), _spent(says, request))
    message = {"role": "assistant", "content": says.text, **says.fields}
    choice = {"index": 0, "message": message, "finish_reason": says.finish_reason}
    return _completion(says, request, "chat.completion", [choice]) | _usage(says, request)


def _error(fails: Fails, *, anthropic: bool) -> dict[str, Any]:
    if anthropic:
        return loopback_messages.error(fails.message, fails.type)
    return {"error": {"message": fails.message, "type": fails.type, "param": None, "code": fails.code}}


def _holds_text(event: Mapping[str, Any]) -> bool:
    return event.get("type") in ("content_block_delta", "response.output_text.delta") or any(
        c["delta"].get("content") for c in event.get("choices", ())
    )


def _events(says: Says, request: Request) -> Iterator[dict[str, Any]]:
    if request.is_anthropic:
        model = says.model or request.body.get("model")
        yield from loopback_messages.events(says, says.pieces, model, _spent(says, request))
        return
    if request.is_responses:
        model = says.model or request.body.get("model")
        yield from loopback_responses.events(says, says.pieces, model, _spent(says, request))
        return

    def event(delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _completion(says, request, "chat.completion.chunk", [choice])

    first, *rest = says.pieces
    content = {} if says.text is None else {"content": first}
    yield event({"role": "assistant", **content, **says.fields})
    yield from (event({"content": piece}) for piece in rest)
    yield event({}, says.finish_reason)
    if request.body.get("stream_options", {}).get("include_usage"):
        yield _completion(says, request, "chat.completion.chunk", []) | _usage(says, request)


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError as error:  # the other side was first
        del error
