"""OpenAI's chat completions through the official SDK (2 and 3): OpenAI, and every server with the same API.

Models that only OpenAI's Responses API has are called through that (`responses`): known ones from the first call,
others when chat completions refuse them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from rlm_kernel.clients.chat_format import ChatReplyBuilder, UntilDone, chat_message, response_format
from rlm_kernel.clients.encoding import MessageEncoder, check_fields, request_body
from rlm_kernel.clients.provider import ProviderAdapter
from rlm_kernel.clients.provider_errors import asks_for_other_limit_name
from rlm_kernel.clients.refused_parts import CHAT, REASONING
from rlm_kernel.clients.responses import (
    INCLUDED,
    MIN_OUTPUT_TOKENS,
    ONLY_RESPONSES,
    PATH,
    SUMMARY,
    Inputs,
    ResponseBuilder,
    fields_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlm_kernel.clients.provider import ReplyBuilder
    from rlm_kernel.types import Message

_PATH = "/chat/completions"
_OLD_LIMIT, _NEW_LIMIT = "max_tokens", "max_completion_tokens"
_USAGE = {"stream_options": {"include_usage": True}}
_REASONING = frozenset({"reasoning", "reasoning_summary"})
"""Sampling arguments that only the Responses API has."""


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

    requested_model: str = field(default="", init=False)
    """The model in the body of a request; empty: `model_name`."""

    default_url: ClassVar[str] = "https://api.openai.com/v1"
    reserved: ClassVar[frozenset[str]] = frozenset({"extra_body", "messages", "model", "n", "stream", "stream_options"})
    reply_builder: ClassVar[type[ReplyBuilder]] = ChatReplyBuilder
    extras: ClassVar[tuple[str, ...]] = ("stream_options", SUMMARY)
    forms: ClassVar[frozenset[str]] = ProviderAdapter.forms | {CHAT, REASONING}

    def __post_init__(self) -> None:
        super().__post_init__()
        host = urlsplit(self.url).hostname or ""
        self.at_openai = host == "api.openai.com" or host.endswith(".api.openai.com")
        if self.at_openai:
            self.models_path = None
        self.shows_schema = self.at_openai  # other servers only constrain the tokens
        # OpenAI's reasoning models refuse the old name; many other servers only know the old one.
        self._limit_name = _NEW_LIMIT if self.at_openai else _OLD_LIMIT
        self._encode, self._inputs = MessageEncoder(chat_message), Inputs()
        if self.at_openai and (ONLY_RESPONSES.match(self.model_name) or _REASONING & (self.sampling_args or {}).keys()):
            self.left_out |= {CHAT}
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
        given = {**(self.extra_body or {}), **(self.sampling_args or {}), **response_format(schema)}
        if CHAT in self.left_out:
            return {
                "model": self.requested_model or self.model_name,
                **({} if max_tokens is None else {"max_output_tokens": max(MIN_OUTPUT_TOKENS, max_tokens)}),
                "store": False,
                **({} if REASONING in self.left_out else {"include": [INCLUDED]}),
                **fields_of(given, self.left_out),
                "input": b",".join(self._inputs(messages, reasoning=REASONING not in self.left_out)),
            }
        return {
            "model": self.requested_model or self.model_name,
            **({} if max_tokens is None else {self._limit_name: max_tokens}),
            **given,
            "messages": b",".join(self._encode(messages)),
        }

    async def send(self, client: Any, request: dict[str, Any], *, stream: bool) -> Any:
        """Post the request; if the server wants the other name of the limit, once more with that.

        Not with `chat.completions.create`: that walks through all messages in Python, for each call of a long run, and
        makes objects of the reply, of which a few fields are read.
        """
        if not stream:
            return await self._post_limited(client, request, stream=False)
        usage = {} if "input" in request or "stream_options" in self.left_out else _USAGE
        return UntilDone(await self._post_limited(client, {**request, "stream": True, **usage}, stream=True))

    def builder(self, request: Mapping[str, Any]) -> ReplyBuilder:
        """A reader of a response or of a chat completion."""
        return ResponseBuilder(self.model_name) if "input" in request else super().builder(request)

    def keep(self, messages: Sequence[Message], text: str, builder: ReplyBuilder) -> None:
        """Keep the reasoning of a response."""
        if isinstance(builder, ResponseBuilder):
            self._inputs.keep(messages, text, builder.output)

    async def _post_limited(self, client: Any, body: dict[str, Any], *, stream: bool) -> Any:
        try:
            return await self._post(client, body, stream=stream)
        except Exception as error:
            if _OLD_LIMIT not in body or not asks_for_other_limit_name(error):
                raise
        # The URL does not show which model answers (Azure, a gateway); this refusal does.
        self._limit_name = _NEW_LIMIT
        renamed = {_NEW_LIMIT if name == _OLD_LIMIT else name: value for name, value in body.items()}
        return await self._post(client, renamed, stream=stream)

    async def _post(self, client: Any, body: dict[str, Any], *, stream: bool) -> Any:
        content, path = request_body(body), PATH if "input" in body else _PATH
        return await client.post(path, cast_to=object, content=content, options=self.options, stream=stream)
