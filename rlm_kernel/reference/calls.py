"""Model calls of cells without a socket, as the reference has them in `rlm.core.lm_handler` and `rlm.core.comms_utils`.

An `LMHandler` has an address. `send_lm_request` and the REPLs of `rlm.environments` find the handler by it, in the same
process only: no port is open, and a kernel reaches models by its Jupyter messages.
"""

from __future__ import annotations

import itertools
import time
import weakref
from asyncio import CancelledError
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Self

from rlm_kernel.clients.direct import BaseLM
from rlm_kernel.types import ModelUsageSummary, RLMChatCompletion, UsageSummary

Address = tuple[str, int]
HOST = "in-process"

_handlers: weakref.WeakValueDictionary[Address, LMHandler] = weakref.WeakValueDictionary()
_numbers = itertools.count(1)


@dataclass
class LMRequest:
    """A question for an `LMHandler`: a prompt, or several."""

    prompt: Any = None
    prompts: list[Any] | None = None
    model: str | None = None
    depth: int = 0

    @property
    def is_batched(self) -> bool:
        """Whether there are several prompts."""
        return bool(self.prompts)

    def to_dict(self) -> dict[str, Any]:
        """The question as plain data."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> LMRequest:
        """The question that `to_dict` wrote."""
        return cls(fields.get("prompt"), fields.get("prompts"), fields.get("model"), fields.get("depth", -1))


@dataclass
class LMResponse:
    """The answer to one prompt, or why there is none."""

    error: str | None = None
    chat_completion: RLMChatCompletion | None = None

    @property
    def success(self) -> bool:
        """Whether there is an answer."""
        return self.error is None


class LMHandler:
    """Asks model clients for the cells of a REPL, between `start` and `stop`.

    Args:
        client: answers.
        host, port: no effect, because there is no socket.
        other_backend_client: answers sub-calls (depth 1) that name no model.
        batch_max_concurrent: prompts of a batch that are asked at a time.
    """

    def __init__(
        self,
        client: BaseLM,
        host: str = HOST,
        port: int = 0,
        other_backend_client: BaseLM | None = None,
        batch_max_concurrent: int = 16,
    ) -> None:
        del host, port
        self.default_client = client
        self.other_backend_client = other_backend_client
        self.batch_max_concurrent = batch_max_concurrent
        self.clients: dict[str, BaseLM] = {}
        self.address: Address = (HOST, next(_numbers))
        self.host, self.port = self.address
        self.register_client(client.model_name, client)

    def register_client(self, model_name: str, client: BaseLM) -> None:
        """Let a client answer the calls that name its model."""
        self.clients[model_name] = client

    def get_client(self, model: str | None = None, depth: int = 0) -> BaseLM:
        """The client of a model; of an unknown one or None, that of the depth."""
        if model in self.clients:
            return self.clients[model]
        return self.other_backend_client if depth == 1 and self.other_backend_client else self.default_client

    def start(self) -> Address:
        """Take calls."""
        _handlers[self.address] = self
        return self.address

    def stop(self) -> None:
        """Take no more calls."""
        _handlers.pop(self.address, None)

    def completion(self, prompt: Any, model: str | None = None) -> str:
        """Answer a text or a conversation."""
        return str(self.get_client(model).completion(prompt))

    def get_usage_summary(self) -> UsageSummary:
        """The usage of all clients."""
        clients = [self.default_client, self.other_backend_client, *self.clients.values()]
        parts = [client.get_usage_summary().model_usage_summaries for client in clients if client is not None]
        return UsageSummary(dict(itertools.chain.from_iterable(part.items() for part in parts)))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def answer(self, request: LMRequest) -> LMResponse:
        """Answer one prompt."""
        client, started = self.get_client(request.model, request.depth), time.perf_counter()
        try:
            text = client.completion(request.prompt)
            model = request.model or client.model_name
            used = _of_last_call(client, model)
        except (Exception, CancelledError) as error:  # noqa: BLE001 (a client of the user; the cell gets what it raises)
            return LMResponse(error=f"llm() call failed - {str(error) or type(error).__name__}")
        seconds = time.perf_counter() - started
        return LMResponse(chat_completion=RLMChatCompletion(model, request.prompt, text, used, seconds))


def send_lm_request(
    address: Address,
    request: LMRequest,
    timeout: float = 300,  # noqa: ARG001 (the client has its own)
    depth: int | None = None,
) -> LMResponse:
    """Ask the handler at an address one prompt."""
    request = request if depth is None else replace(request, depth=depth)
    if (handler := _handlers.get(address)) is None:
        return LMResponse(error=f"Request failed: no LMHandler of this process has the address {address!r}")
    if not request.prompt:
        return LMResponse(error="Missing 'prompt' in request: send_lm_request_batched takes several")
    return handler.answer(request)


def send_lm_request_batched(
    address: Address,
    prompts: Sequence[Any],
    model: str | None = None,
    timeout: float = 300,
    depth: int = 0,
) -> list[LMResponse]:
    """Ask the handler at an address several prompts at a time. The answers are in the same order."""
    known = _handlers.get(address)
    requests = [LMRequest(prompt, model=model, depth=depth) for prompt in prompts]
    with ThreadPoolExecutor(known.batch_max_concurrent if known else 1) as threads:
        return list(threads.map(lambda request: send_lm_request(address, request, timeout), requests))


def _of_last_call(client: BaseLM, model: str) -> UsageSummary:
    """The usage of the last call. Clients written for the reference may give a summary."""
    used: ModelUsageSummary | UsageSummary = client.get_last_usage()
    return used if isinstance(used, UsageSummary) else UsageSummary({model: used})
