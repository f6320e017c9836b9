"""The `llamacpp` backend: a small model on this machine, without a key and free of charge.

At the first use the weights are downloaded and verified (`weights`). One server per process answers all calls
(`server_process`), through a `RemoteLM`. A server of the user's own, given as `base_url`, replaces both.
"""

from __future__ import annotations

import asyncio
import copy
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.clients.base import BaseLM
from rlm_kernel.clients.llamacpp.server_process import Server, ServerAddress, ServerSettings, shared_server
from rlm_kernel.clients.llamacpp.weights import QWEN_CODER, fetch_shared
from rlm_kernel.clients.openai import OpenAIAdapter
from rlm_kernel.clients.remote import RemoteLM
from rlm_kernel.errors import ConfigError, LMError, check_extra

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlm_kernel.clients.base import OnText
    from rlm_kernel.types import Message, Reply

MAX_REPLY_TOKENS = 1024
"""The default of `max_tokens`: at temperature 0 a small model can repeat itself until its window is full."""

DEFAULT_WINDOW = 8192
"""The default of `n_ctx`, in tokens, for a server that is started here."""

KEY_VARIABLE = "LLAMACPP_API_KEY"
"""The variable of the key of the user's own server, for errors; the same as in the table of backends."""


class LlamaCppLM(BaseLM):
    """An `LM` on this machine.

    Args:
        model_name: the name of the model; any name if `model_path` is given.
        model_path: the user's own GGUF file; None selects the known model, which is downloaded at first use.
        base_url: a llama.cpp server that is already running; then nothing is downloaded or started.
        api_key: the key of that server; a server without keys accepts any word.
        n_ctx: tokens of prompt and reply together, for each call; None is `DEFAULT_WINDOW`, or what the server at
            `base_url` reports.
        n_parallel: calls that are answered at a time; others wait. Memory grows with n_ctx * n_parallel.
        max_tokens: the longest reply in tokens; overrides the limit of a call.
        sampling_args: fields of the request; temperature is 0 unless set here.
        max_retries: how often a call is retried after 429, 5xx or a lost connection. 0 by default: repeating a call
            does not help a busy local server.
        timeout: seconds without data of the reply after which a call fails. Reading a prompt of 8,000 tokens takes two
            minutes on two slow cores.

    Raises:
        ConfigError: the model is unknown, its file does not exist, the extra `local` is not installed, or the key
            cannot be sent.
    """

    backend = "llamacpp"

    def __init__(
        self,
        model_name: str = QWEN_CODER.name,
        *,
        model_path: str | Path | None = None,
        base_url: str | None = None,
        api_key: str = "EMPTY",
        n_ctx: int | None = None,
        n_parallel: int = 4,
        max_tokens: int | None = None,
        sampling_args: Mapping[str, Any] | None = None,
        max_retries: int = 0,
        timeout: float = 900.0,
    ) -> None:
        self.model = model_name
        self.api_key = api_key
        self._path = None if model_path is None else Path(model_path).expanduser().absolute()
        self._n_ctx = n_ctx or DEFAULT_WINDOW
        self._n_parallel = n_parallel
        self._max_tokens = max_tokens
        self._settings: dict[str, Any] = {
            "backend": self.backend,
            "key_variable": KEY_VARIABLE,
            "own_server": True,
            "max_retries": max_retries,
            "max_tokens": max_tokens,
            "sampling_args": {"temperature": 0, **(sampling_args or {})},
            "timeout": timeout,
            # The server sometimes closes a connection that is used again right after a streamed reply.
            "headers": {"Connection": "close"},
        }
        self._server: Server | None = None
        self._own = None if base_url is None else ServerAddress(base_url, api_key)
        self._address = self._own
        self._client = None if self._own is None else self._make_client(self._own, n_ctx)
        if self._own is None:
            _check(model_name, self._path)

    def __repr__(self) -> str:
        return f"LlamaCppLM({self.model!r})"

    @property
    def context_window(self) -> int | None:
        """Tokens of prompt and reply together; the user's own server is asked for it with the first call."""
        return self._n_ctx if self._client is None else self._client.context_window

    def reply_limit(self, max_tokens: int | None) -> int:
        """The longest reply in tokens; there always is a limit."""
        return self._max_tokens or max_tokens or MAX_REPLY_TOKENS

    def price(self, input_tokens: int, output_tokens: int) -> float | None:
        """0 on this machine."""
        return 0.0 if self._own is None or self._client is None else self._client.price(input_tokens, output_tokens)

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        on_text: OnText | None = None,
        schema: dict[str, Any] | None = None,
    ) -> Reply:
        """Answer the conversation. The first call of a process downloads the weights and starts the server.

        Raises:
            LMError: the weights cannot be downloaded, the server did not start, or it failed.
        """
        max_tokens = max_tokens or MAX_REPLY_TOKENS
        # Always streamed: otherwise llama.cpp may notice only at the end that the call was cancelled.
        on_text = on_text or _ignore
        while True:
            client, server = await self._connect()
            async with server.turn() if server else nullcontext():
                # The server may have died while this call waited. Nothing was sent to it, so a new one is started.
                if server is None or server.alive:
                    try:
                        return await client.complete(messages, max_tokens=max_tokens, on_text=on_text, schema=schema)
                    except LMError as error:
                        if server is not None:
                            # Inside the turn: the next call in this turn must know whether the server is dead.
                            error.args = (f"{error}{await self._hint(error, server)}",)
                        raise

    def warmer(self, temperature: float) -> LlamaCppLM | None:
        """See `BaseLM`."""
        client = None if self._client is None else self._client.warmer(temperature)
        if client is None:
            return None
        other = copy.copy(self)
        other._client = client  # noqa: SLF001 (of our own class)
        return other

    async def close(self) -> None:
        """Close the connections. The server remains for the other clients of the process, until the process ends."""
        if self._client is not None:
            await self._client.close()

    async def _connect(self) -> tuple[RemoteLM, Server | None]:
        """The client, and the server that it calls if that was started here."""
        address, server = await self._find_server()
        if (client := self._client) is not None and address == self._address:
            return client, server
        # Replaced before the first await: parallel calls get here at the same time.
        self._address, self._client = address, (new := self._make_client(address, self._n_ctx))
        if client is not None:  # of a server that has died
            await client.close()
        return new, server

    async def _find_server(self) -> tuple[ServerAddress, Server | None]:
        if self._own is not None:
            return self._own, None
        if self._path is None:
            self._path = await fetch_shared()
        settings = ServerSettings(str(self._path), self.model, self._n_ctx, self._n_parallel)
        self._server = server = shared_server(settings)
        address = asyncio.wrap_future(server.address)
        # Shielded, because other calls may wait for it when this one is cancelled; its error is then theirs.
        address.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(address), server

    async def _hint(self, error: LMError, server: Server) -> str:
        """What to do about an error, if this backend knows more than the message says; else empty."""
        if error.status is None and await server.ended():
            return " The local server has ended, perhaps for lack of memory; the next call starts it again."
        return f" Or raise n_ctx in backend_kwargs; it is {self._n_ctx}." if "context size" in str(error) else ""

    def _make_client(self, address: ServerAddress, context_window: int | None) -> RemoteLM:
        where = (self.model, address.api_key, address.base_url)
        return RemoteLM(OpenAIAdapter(*where, context_window=context_window, **self._settings))


def _check(model_name: str, path: Path | None) -> None:
    if path is None and model_name != QWEN_CODER.name:
        raise ConfigError(
            f"The backend 'llamacpp' knows the model {QWEN_CODER.name!r}, not {model_name!r}: leave model_name out, or "
            "give model_path, a GGUF file of your own."
        )
    if path is not None and not path.is_file():
        raise ConfigError(f"model_path is no file: {path}. It must be a GGUF file.")
    check_extra("The backend 'llamacpp'", "xllamacpp", "local")


def _ignore(_: str) -> None:
    pass
