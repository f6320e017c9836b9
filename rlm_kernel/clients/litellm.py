"""The `litellm` backend: many providers behind one package (the extra `litellm`, which needs openai 2).

The name of the model says whom litellm asks, ``anthropic/claude-sonnet-4-5`` say. litellm reports the cost from a price
table of its own and knows context windows. It is kept from fetching that table at import, from printing, from reading
a `.env` file into the environment of the process, and from following redirects.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import wraps
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from rlm_kernel.clients.chat_format import ChatDraft, chat_message, response_format
from rlm_kernel.clients.endpoint import check_key
from rlm_kernel.clients.provider_errors import lm_errors
from rlm_kernel.clients.remote import RemoteLM
from rlm_kernel.clients.reply import dollars
from rlm_kernel.clients.reply_size import hooks
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from rlm_kernel.types import Message

KEYS: Mapping[str, str] = MappingProxyType(
    {
        "openai/": "OPENAI_API_KEY",
        "gpt-": "OPENAI_API_KEY",
        "anthropic/": "ANTHROPIC_API_KEY",
        "claude-": "ANTHROPIC_API_KEY",
        "openrouter/": "OPENROUTER_API_KEY",
        "gemini/": "GEMINI_API_KEY",
        "groq/": "GROQ_API_KEY",
        "mistral/": "MISTRAL_API_KEY",
        "deepseek/": "DEEPSEEK_API_KEY",
        "xai/": "XAI_API_KEY",
    }
)
"""How names of models begin, and the variable of the key that they need. Of all others litellm knows the variables."""


_SECRET = re.compile("key|token|secret|password", re.IGNORECASE)


class _Module:
    """litellm as a client that can be closed; its connections belong to the process, so that does nothing."""

    def __init__(self, module: Any) -> None:
        self.ask = module.acompletion
        self.known = module.model_cost

    async def close(self) -> None:
        pass


@dataclass(eq=False, repr=False)
class LiteLLM(RemoteLM):
    """An `LM` that litellm asks; see `RemoteLM`.

    Args:
        api_key: the key; without one its variable is looked up, which for models outside of `KEYS` litellm names.
        options: further arguments of `litellm.acompletion`.
        env: where the variables are looked up.

    Raises:
        ConfigError: the model's key is nowhere.
    """

    api_key: str = ""
    _: KW_ONLY
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    default_url: ClassVar[str] = "the model's provider"
    reserved: ClassVar[frozenset[str]] = frozenset({"max_tokens", "messages", "model", "n", "stream", "stream_options"})

    def __post_init__(self) -> None:
        variable = next((name for start, name in KEYS.items() if self.model_name.startswith(start)), None)
        self.key_variable = variable or "that litellm names"
        self.api_key = self.api_key or self.env.get(variable or "", "").strip()
        if variable and not self.api_key:
            raise ConfigError(
                f"No API key for the model {self.model_name!r}: set {variable} in the environment or in a .env file of "
                "the working directory or one above it (Python code may also give api_key in backend_kwargs)."
            )
        super().__post_init__()

    def _check_key(self) -> None:
        if self.api_key:
            check_key(self.api_key, self.key_variable)

    def _open(self) -> _Module:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it is fetched while it is imported
        with _without_dotenv():
            import litellm

        _guard_clients(litellm)
        litellm.suppress_debug_info = True  # else it prints advice to stdout with every error
        if not self.api_key:
            # It looks into the process's environment only, and there is the .env file, too.
            missing = litellm.validate_environment(self.model_name)["missing_keys"]
            named = (self.env.get(name, "").strip() for name in missing if name.endswith("_API_KEY"))
            self.api_key = next(filter(None, named), "")
        return _Module(litellm)

    def _opened(self) -> _Module:
        client = self._open()
        if not self._window_known:
            facts = (client.known.get(name, {}) for name in (self.model_name, self.model_name.partition("/")[2]))
            self.context_window = next(
                (n for fact in facts if isinstance(n := fact.get("max_input_tokens"), int)), None
            )
        return client

    def _request(
        self, messages: list[Message], max_tokens: int | None, schema: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        given = {"api_key": self.api_key or None, "api_base": self.base_url, "max_tokens": max_tokens}
        return {
            "model": self.model_name,
            "messages": [chat_message(m) for m in messages],
            # Its own default is 6000 seconds; `num_retries` would put a second retry loop around the SDK's.
            "timeout": self.timeout,
            "max_retries": self.max_retries,
            **{name: value for name, value in given.items() if value is not None},
            **self.options,
            **(self.sampling_args or {}),
            **response_format(schema),
        }

    async def _create(self, client: _Module, request: dict[str, Any]) -> Any:
        extras = {"stream_options": {"include_usage": True}} if request.get("stream") else {}
        return await client.ask(**request, **extras)

    async def _chunks(self, client: _Module, request: dict[str, Any]) -> AsyncGenerator[Any]:
        with lm_errors(self._endpoint):
            async with aclosing(await self._create(client, {**request, "stream": True})) as stream:
                async for chunk in stream:
                    yield chunk

    def _draft(self) -> ChatDraft:
        return _PricedDraft(self.model_name)

    def _in_price_table(self) -> None:
        """The table of litellm is asked instead, by litellm."""

    async def _ask_for_window(self, client: _Module) -> None:
        """The table of litellm has told."""

    def _secrets(self) -> tuple[str, ...]:
        # Those among the options, and those that litellm finds itself.
        places = [*self.options.items(), *self.env.items(), *os.environ.items()]
        return (self.api_key, *(str(value) for name, value in places if _SECRET.search(name)))


@contextmanager
def _without_dotenv() -> Iterator[None]:
    """Keep litellm's import from loading the nearest `.env`, which would then count as the user's environment.

    It does so in its mode DEV, which is its default. A file of the working folder, or of one above litellm itself,
    could so name servers and proxies for keys of the process.
    """
    before = os.environ.get("LITELLM_MODE")
    os.environ["LITELLM_MODE"] = "PRODUCTION"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LITELLM_MODE"]
        else:
            os.environ["LITELLM_MODE"] = before


def _guard_clients(litellm: Any) -> None:
    """Make the HTTP clients that litellm makes keep the rules of `http_options`; it has no setting for that.

    The places where it makes them are two. A redirect would take a header such as x-api-key along.
    """
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler
    from litellm.llms.openai.common_utils import BaseOpenAILLM

    if not hasattr(AsyncHTTPHandler.create_client, "__wrapped__"):
        AsyncHTTPHandler.create_client = _guarded(AsyncHTTPHandler.create_client, litellm)
        made = _guarded(BaseOpenAILLM._get_async_http_client, litellm)  # noqa: SLF001
        BaseOpenAILLM._get_async_http_client = staticmethod(made)  # noqa: SLF001


def _guarded(make_client: Callable[..., Any], litellm: Any) -> Callable[..., Any]:
    @wraps(make_client)
    def make(*args: Any, **options: Any) -> Any:
        client = make_client(*args, **options)
        if client is not None and client is not litellm.aclient_session:  # that one is the user's
            client.follow_redirects = False
            client.event_hooks = {kind: [*client.event_hooks[kind], *ours] for kind, ours in hooks().items()}
        return client

    return make


class _PricedDraft(ChatDraft):
    """A chat completion whose cost litellm has worked out; a stream says it in its usage."""

    def add(self, response: Any) -> str:
        text = super().add(response)
        worked_out = (getattr(response, "_hidden_params", None) or {}).get("response_cost")
        if self.tokens is None or self.tokens.input == 0:  # so litellm says that the provider did not tell
            self.tokens = self.cost = None
        elif worked_out is not None:
            self.cost = dollars(worked_out)
        return text
