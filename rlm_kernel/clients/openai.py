"""OpenAI's chat completions through the official SDK (2 and 3): OpenAI, and every server with the same API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from rlm_kernel.clients.chat_format import ChatDraft, chat_message, response_format
from rlm_kernel.clients.endpoint import http_options
from rlm_kernel.clients.provider_errors import asks_for_other_limit_name
from rlm_kernel.clients.remote import CONNECT_SECONDS, RemoteLM

if TYPE_CHECKING:
    from rlm_kernel.types import Message

_OLD_LIMIT, _NEW_LIMIT = "max_tokens", "max_completion_tokens"


@dataclass(eq=False, repr=False)
class OpenAILM(RemoteLM):
    """An `LM` behind an OpenAI-compatible endpoint; see `RemoteLM`."""

    default_url: ClassVar[str] = "https://api.openai.com/v1"
    reserved: ClassVar[frozenset[str]] = frozenset(
        {"extra_body", "max_completion_tokens", "max_tokens", "messages", "model", "n", "stream", "stream_options"}
    )
    """Fields of a request that `sampling_args` may not set, because they have a place of their own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_openai = _is_openai(self._url)
        # OpenAI's reasoning models refuse the old name; many other servers know only that.
        self._limit_name = _NEW_LIMIT if self._at_openai else _OLD_LIMIT

    def _open(self) -> Any:
        import openai

        client = openai.AsyncOpenAI(
            api_key=self.api_key,
            base_url=self._url,
            timeout=openai.Timeout(self.timeout, connect=min(self.timeout, CONNECT_SECONDS)),
            max_retries=self.max_retries,
            default_headers=self.headers,
            http_client=openai.DefaultAsyncHttpxClient(**http_options(self._url)),
        )
        # The SDK reads keys and headers of the environment, which are not for every server that base_url names.
        client.admin_api_key = None
        client._custom_headers = dict(self.headers or {})  # noqa: SLF001 (an argument only adds to them)
        if not self._at_openai:
            client.organization = client.project = None
        _ = client.chat.completions  # the SDK imports this part at first use: here, in the thread
        return client

    def _request(
        self, messages: list[Message], max_tokens: int | None, schema: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return {
            "model": self.model_name,
            "messages": [chat_message(m) for m in messages],
            # As extra_body, because the SDK refuses arguments that it does not know, such as top_k.
            "extra_body": {**(self.extra_body or {}), **(self.sampling_args or {}), **response_format(schema)},
            **({} if max_tokens is None else {self._limit_name: max_tokens}),
        }

    async def _create(self, client: Any, request: dict[str, Any]) -> Any:
        extras = {"stream_options": {"include_usage": True}} if request.get("stream") else {}
        try:
            return await client.chat.completions.create(**request, **extras)
        except Exception as error:
            if _OLD_LIMIT not in request or not asks_for_other_limit_name(error):
                raise
        # An address does not tell whose model stands behind it (Azure, a gateway); the refusal does.
        self._limit_name = _NEW_LIMIT
        renamed = {_NEW_LIMIT if name == _OLD_LIMIT else name: value for name, value in request.items()}
        return await client.chat.completions.create(**renamed, **extras)

    def _shows_schema(self) -> bool:
        return self._at_openai

    def _draft(self) -> ChatDraft:
        return ChatDraft(self.model_name)

    async def _ask_for_window(self, client: Any) -> None:
        if not self._at_openai:  # OpenAI does not tell
            await super()._ask_for_window(client)


def _is_openai(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")
