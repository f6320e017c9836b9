"""OpenAI's chat completions through the official SDK (2 and 3): OpenAI, and every server with the same API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from rlm_kernel.clients.chat_format import ChatReplyBuilder, chat_message, response_format
from rlm_kernel.clients.encoding import MessageEncoder, check_fields, request_body
from rlm_kernel.clients.provider import ProviderAdapter
from rlm_kernel.clients.provider_errors import asks_for_other_limit_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlm_kernel.clients.provider import ReplyBuilder
    from rlm_kernel.types import Message

_PATH = "/chat/completions"
_OLD_LIMIT, _NEW_LIMIT = "max_tokens", "max_completion_tokens"


@dataclass(eq=False, repr=False)
class OpenAIAdapter(ProviderAdapter):
    """Calls an OpenAI-compatible endpoint.

    Args:
        organization: the organisation that pays, of OpenAI.
        project: the project that pays, of OpenAI.
    """

    _: KW_ONLY
    organization: str | None = None
    project: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict, init=False)
    """Of the SDK, for each request."""

    default_url: ClassVar[str] = "https://api.openai.com/v1"
    reserved: ClassVar[frozenset[str]] = frozenset({"extra_body", "messages", "model", "n", "stream", "stream_options"})
    reply_builder: ClassVar[type[ReplyBuilder]] = ChatReplyBuilder

    def __post_init__(self) -> None:
        super().__post_init__()
        host = urlsplit(self.url).hostname or ""
        self.at_openai = host == "api.openai.com" or host.endswith(".api.openai.com")
        if self.at_openai:
            self.models_path = None
        self.shows_schema = self.at_openai  # other servers only constrain the tokens
        # OpenAI's reasoning models refuse the old name; many other servers only know the old one.
        self._limit_name = _NEW_LIMIT if self.at_openai else _OLD_LIMIT
        self._encode = MessageEncoder(chat_message)
        check_fields("sampling_args", self.sampling_args)
        check_fields("extra_body", self.extra_body, ("messages", "stream"))

    def open(self) -> Any:
        """Build an `AsyncOpenAI`."""
        import openai

        client: Any = openai.AsyncOpenAI(**self.sdk_options(openai))
        # The SDK reads keys and headers from the environment, which must not reach every server in base_url.
        client.admin_api_key = None
        client._custom_headers = dict(self.headers or {})  # noqa: SLF001 (the argument only adds to them)
        if not self.at_openai:
            client.organization = client.project = None
        client.organization = self.organization or client.organization
        client.project = self.project or client.project
        return client

    def build_request(
        self, messages: Sequence[Message], max_tokens: int | None, schema: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The fields of the body; the messages are encoded."""
        return {
            "model": self.model_name,
            **({} if max_tokens is None else {self._limit_name: max_tokens}),
            **(self.extra_body or {}),
            **(self.sampling_args or {}),
            **response_format(schema),
            "messages": b",".join(self._encode(messages)),
        }

    async def send(self, client: Any, request: dict[str, Any], *, stream: bool) -> Any:
        """Post the request; if the server wants the other name of the limit, once more with that.

        Not with `chat.completions.create`: that walks through all messages in Python, for each call of a long run, and
        makes objects of the reply, of which a few fields are read.
        """
        body = {**request, "stream": True, "stream_options": {"include_usage": True}} if stream else request
        try:
            return await self._post(client, body, stream=stream)
        except Exception as error:
            if _OLD_LIMIT not in request or not asks_for_other_limit_name(error):
                raise
        # The URL does not show which model answers (Azure, a gateway); this refusal does.
        self._limit_name = _NEW_LIMIT
        renamed = {_NEW_LIMIT if name == _OLD_LIMIT else name: value for name, value in body.items()}
        return await self._post(client, renamed, stream=stream)

    async def _post(self, client: Any, body: dict[str, Any], *, stream: bool) -> Any:
        content = request_body(body)
        return await client.post(_PATH, cast_to=object, content=content, options=self.options, stream=stream)
