"""The `llamacpp` backend: a real, small model on this machine, without a key and without a bill.

The weights are fetched and checked at first use (`weights`), one server of the process answers all calls
(`llamacpp_server`), and `OpenAILM` speaks with it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rlm_kernel.clients.llamacpp_server import Address, Server, Settings, shared
from rlm_kernel.clients.openai import OpenAILM
from rlm_kernel.clients.weights import QWEN_CODER, ensure
from rlm_kernel.errors import ConfigError, LMError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rlm_kernel.clients.download_progress import Progress
    from rlm_kernel.clients.lm import OnText
    from rlm_kernel.records import Message, Reply

T = TypeVar("T")

LONGEST_REPLY = 1024
"""Tokens, when nobody says: at temperature 0 a small model can repeat itself until its window is full."""


class LlamaCppLM:
    """An `LM` on this machine.

    Args:
        model_name: the name of the model; a free choice when `model_path` is given.
        model_path: a GGUF file of your own; None is the known model, fetched at first use.
        base_url: a llama.cpp server that already runs; then nothing is fetched or started.
        n_ctx: tokens of prompt and reply together, for each call.
        n_parallel: calls that are answered at a time; the others wait. Memory grows with n_ctx * n_parallel.
        max_tokens: the longest reply in tokens; what is said here stands above what a call asks for.
        sampling_args: fields of the request; temperature is 0 unless set here.
        timeout: seconds without a word of the reply after which a call is given up. Reading a prompt of 8,000 tokens
            takes two minutes on two slow cores.
        progress: told about the download; None draws a bar on stderr.

    Raises:
        ConfigError: the model is unknown, its file is not there, or the extra `local` is not installed.
    """

    backend = "llamacpp"
    takes_schema = True

    def __init__(
        self,
        model_name: str = QWEN_CODER.name,
        *,
        model_path: str | Path | None = None,
        base_url: str | None = None,
        n_ctx: int = 8192,
        n_parallel: int = 4,
        max_tokens: int | None = None,
        sampling_args: Mapping[str, Any] | None = None,
        timeout: float = 900.0,
        progress: Progress | None = None,
    ) -> None:
        self.model = model_name
        self.context_window = n_ctx
        self._path = None if model_path is None else Path(model_path).expanduser().absolute()
        self._base_url = base_url
        self._n_parallel = n_parallel
        self._max_tokens = max_tokens
        self._sampling = {"temperature": 0, **(sampling_args or {})}
        self._timeout = timeout
        self._progress = progress
        self._client: OpenAILM | None = None
        self._address: Address | None = None
        self._server: Server | None = None
        if base_url is None:
            _check(model_name, self._path)

    def __repr__(self) -> str:
        return f"LlamaCppLM({self.model!r})"

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        on_text: OnText | None = None,
        schema: dict[str, Any] | None = None,
    ) -> Reply:
        """Answer the conversation. The first call of a process fetches the weights and starts the server.

        Args:
            messages: the conversation.
            max_tokens: the longest reply in tokens; `LONGEST_REPLY` when None.
            on_text: called with each piece of the text.
            schema: a JSON Schema; the server lets the model write nothing that does not fit it.

        Raises:
            LMError: the weights cannot be had, the server did not start, or it failed.
        """
        client = await self._connected()
        try:
            async with self._server.turn() if self._server else nullcontext():
                # Always streamed: of a call that is not, llama.cpp may notice only at its end that it was given up.
                limit = max_tokens or LONGEST_REPLY
                return await client.complete(messages, max_tokens=limit, on_text=on_text or _ignore, schema=schema)
        except LMError as error:
            raise await self._explained(error) from error.__cause__

    async def close(self) -> None:
        """Close the connections. The server stays for the other clients of the process, until it ends."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _connected(self) -> OpenAILM:
        address = await self._located()
        if (client := self._client) is not None and address == self._address:
            return client
        # Replaced before anything is awaited: calls that run side by side come here at the same time.
        self._address, self._client = address, (new := self._connect(address))
        if client is not None:  # of a server that has died
            await client.close()
        return new

    async def _explained(self, error: LMError) -> LMError:
        """The error, with what only this backend knows."""
        if error.status is None and self._server is not None and await self._server.ended():
            hint = "The local server has ended, perhaps for want of memory; the next call starts it again."
        elif "context size" in str(error):
            hint = f"Or raise n_ctx in backend_kwargs; it is {self.context_window}."
        else:
            return error
        return type(error)(
            f"{error} {hint}", backend=self.backend, model=self.model, status=error.status, request_id=error.request_id
        )

    def _connect(self, address: Address) -> OpenAILM:
        return OpenAILM(
            self.model,
            address.api_key,
            address.base_url,
            backend=self.backend,
            own_server=True,
            max_retries=0,  # a busy local server is not helped by the same call once more
            max_tokens=self._max_tokens,
            sampling_args=self._sampling,
            context_window=self.context_window,
            timeout=self._timeout,
            # Its server sometimes closes a connection that is used again right after a streamed reply.
            headers={"Connection": "close"},
        )

    async def _located(self) -> Address:
        if self._base_url is not None:
            return Address(self._base_url, "none")
        if self._path is None:
            self._path = await _in_daemon(lambda: ensure(QWEN_CODER, self._progress))
        self._server = shared(Settings(str(self._path), self.model, self.context_window, self._n_parallel))
        # Shielded, because others may wait for it when this call is cancelled.
        return await asyncio.shield(asyncio.wrap_future(self._server.address))


def _check(model_name: str, path: Path | None) -> None:
    if path is None and model_name != QWEN_CODER.name:
        raise ConfigError(
            f"The backend 'llamacpp' knows the model {QWEN_CODER.name!r}, not {model_name!r}: leave model_name out, or "
            "give model_path, a GGUF file of your own."
        )
    if path is not None and not path.is_file():
        raise ConfigError(f"model_path is no file: {path}. It must be a GGUF file.")
    if importlib.util.find_spec("xllamacpp") is None:
        raise ConfigError("The backend 'llamacpp' needs the extra 'local': pip install 'rlm-kernel[local]'.")


def _ignore(_: str) -> None:
    pass


async def _in_daemon(function: Callable[[], T]) -> T:
    """Run it in a thread that does not hold up the end of the process, as those of asyncio would."""
    outcome: Future[T] = Future()
    thread = threading.Thread(target=_fulfil, args=(outcome, function), name="rlm-llamacpp-weights", daemon=True)
    thread.start()
    return await asyncio.shield(asyncio.wrap_future(outcome))


def _fulfil(outcome: Future[T], function: Callable[[], T]) -> None:
    try:
        outcome.set_result(function())
    except BaseException as error:  # noqa: BLE001 (raised where the outcome is awaited)
        outcome.set_exception(error)
