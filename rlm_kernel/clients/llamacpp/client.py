"""The `llamacpp` backend: a small model on this machine, without a key and without cost.

The weights are fetched and checked at the first use (`weights`), one server of the process answers all calls
(`server_process`), and `OpenAILM` talks to it. A server of the user's own, named by `base_url`, replaces both.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.clients.llamacpp.server_process import Server, ServerAddress, ServerSettings, shared_server
from rlm_kernel.clients.llamacpp.weights import QWEN_CODER, fetch_shared
from rlm_kernel.clients.openai import OpenAILM
from rlm_kernel.errors import ConfigError, LMError, check_extra

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from rlm_kernel.clients.base import OnText
    from rlm_kernel.clients.llamacpp.weights import Progress
    from rlm_kernel.types import Message, Reply

MAX_REPLY_TOKENS = 1024
"""Tokens, when nobody says: at temperature 0 a small model can repeat itself until its window is full."""

USUAL_WINDOW = 8192
"""Tokens, for a server that is started here, when nobody says."""

KEY_VARIABLE = "LLAMACPP_API_KEY"
"""What errors about the key of a server of one's own name, as the table of backends does."""


class LlamaCppLM:
    """An `LM` on this machine.

    Args:
        model_name: the name of the model; a free choice when `model_path` is given.
        model_path: a GGUF file of your own; None is the known model, fetched at first use.
        base_url: a llama.cpp server that already runs; then nothing is fetched or started.
        api_key: the key of that server; one that wants none takes any word.
        n_ctx: tokens of prompt and reply together, for each call; None is `USUAL_WINDOW`, or what the server at
            `base_url` says.
        n_parallel: calls that are answered at a time; the others wait. Memory grows with n_ctx * n_parallel.
        max_tokens: the longest reply in tokens; what is said here stands above what a call asks for.
        sampling_args: fields of the request; temperature is 0 unless set here.
        max_retries: how often a call is sent again after 429, 5xx or a lost connection. None by itself: a busy local
            server is not helped by the same call once more.
        timeout: seconds without a word of the reply after which a call is given up. Reading a prompt of 8,000 tokens
            takes two minutes on two slow cores.
        progress: told about the download; None draws a bar on stderr.

    Raises:
        ConfigError: the model is unknown, its file is not there, or the extra `local` is not installed; or the key
            cannot be sent.
    """

    backend = "llamacpp"
    takes_schema = True

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
        progress: Progress | None = None,
    ) -> None:
        self.model = model_name
        self.api_key = api_key
        self._path = None if model_path is None else Path(model_path).expanduser().absolute()
        self._n_ctx = n_ctx or USUAL_WINDOW
        self._n_parallel = n_parallel
        self._max_tokens = max_tokens
        self._sampling = {"temperature": 0, **(sampling_args or {})}
        self._max_retries = max_retries
        self._timeout = timeout
        self._progress = progress
        self._server: Server | None = None
        self._own = None if base_url is None else ServerAddress(base_url, api_key)
        self._address = self._own
        self._client = None if self._own is None else self._connect(self._own, n_ctx)
        if self._own is None:
            _check(model_name, self._path)

    def __repr__(self) -> str:
        return f"LlamaCppLM({self.model!r})"

    @property
    def context_window(self) -> int | None:
        """Tokens of prompt and reply together; a server of one's own is asked for it beside the first call."""
        return self._n_ctx if self._client is None else self._client.context_window

    def reply_limit(self, max_tokens: int | None) -> int:
        """The longest reply in tokens; there always is a limit."""
        return self._max_tokens or max_tokens or MAX_REPLY_TOKENS

    def price(self, input_tokens: int, output_tokens: int) -> float | None:
        """Nothing, on this machine."""
        return 0.0 if self._own is None or self._client is None else self._client.price(input_tokens, output_tokens)

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
            max_tokens: the longest reply in tokens; `MAX_REPLY_TOKENS` when None.
            on_text: called with each piece of the text.
            schema: a JSON Schema; the server lets the model write nothing that does not fit it.

        Raises:
            LMError: the weights cannot be had, the server did not start, or it failed.
        """
        limit = max_tokens or MAX_REPLY_TOKENS
        while True:
            client, server = await self._connected()
            async with server.turn() if server else nullcontext():
                # A server may have died while this call waited. Nothing was sent to it, so the next one is asked.
                if server is None or server.alive:
                    # Always streamed: of a call that is not, llama.cpp may notice only at its end that it was given up.
                    call = client.complete(messages, max_tokens=limit, on_text=on_text or _ignore, schema=schema)
                    # Within the turn: who gets it next must know whether this server is dead.
                    return await self._answered(call, server)

    async def close(self) -> None:
        """Close the connections. The server stays for the other clients of the process, until it ends."""
        if self._client is not None:
            await self._client.close()

    async def _connected(self) -> tuple[OpenAILM, Server | None]:
        """The client, and the server that is started here for it."""
        address, server = await self._located()
        if (client := self._client) is not None and address == self._address:
            return client, server
        # Replaced before anything is awaited: calls that run side by side come here at the same time.
        self._address, self._client = address, (new := self._connect(address, self._n_ctx))
        if client is not None:  # of a server that has died
            await client.close()
        return new, server

    async def _answered(self, call: Awaitable[Reply], server: Server | None) -> Reply:
        try:
            return await call
        except LMError as error:
            raise await self._explained(error, server) from error.__cause__

    async def _explained(self, error: LMError, server: Server | None) -> LMError:
        """The error, with what only this backend knows."""
        if server is None:
            return error
        if error.status is None and await server.ended():
            hint = "The local server has ended, perhaps for want of memory; the next call starts it again."
        elif "context size" in str(error):
            hint = f"Or raise n_ctx in backend_kwargs; it is {self._n_ctx}."
        else:
            return error
        return type(error)(
            f"{error} {hint}",
            backend=self.backend,
            model=self.model,
            status=error.status,
            request_id=error.request_id,
            requests=error.requests,
            usage=error.usage,
        )

    def _connect(self, address: ServerAddress, context_window: int | None) -> OpenAILM:
        return OpenAILM(
            self.model,
            address.api_key,
            address.base_url,
            backend=self.backend,
            key_variable=KEY_VARIABLE,
            own_server=True,
            max_retries=self._max_retries,
            max_tokens=self._max_tokens,
            sampling_args=self._sampling,
            context_window=context_window,
            timeout=self._timeout,
            # Its server sometimes closes a connection that is used again right after a streamed reply.
            headers={"Connection": "close"},
        )

    async def _located(self) -> tuple[ServerAddress, Server | None]:
        if self._own is not None:
            return self._own, None
        if self._path is None:
            self._path = await fetch_shared(self._progress)
        self._server = server = shared_server(
            ServerSettings(str(self._path), self.model, self._n_ctx, self._n_parallel)
        )
        # Shielded, because others may wait for it when this call is cancelled.
        return await asyncio.shield(asyncio.wrap_future(server.address)), server


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
