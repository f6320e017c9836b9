"""The `litellm` backend: many providers behind one package (the extra `litellm`, which needs openai 2).

The name of the model selects the provider, for example ``anthropic/claude-sonnet-4-5``. litellm computes the cost from
its own price table and knows context windows. It is prevented from downloading that table at import, from printing,
from reading a `.env` file into the environment of the process, and from following redirects.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import wraps
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from rlm_kernel.clients.chat_format import ChatReplyBuilder, chat_message, response_format
from rlm_kernel.clients.provider import ProviderAdapter, dollars
from rlm_kernel.clients.transport import event_hooks
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlm_kernel.clients.provider import ReplyBuilder
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
"""Prefixes of model names, and the variable of the key. For all other models, litellm names the variable."""


_SECRET = re.compile("key|token|secret|password", re.IGNORECASE)


class _Module:
    """litellm as a client. Its connections belong to the process, so `close` does nothing."""

    def __init__(self, module: Any) -> None:
        self.complete = module.acompletion

    async def close(self) -> None:
        pass


class _PricedReplyBuilder(ChatReplyBuilder):
    """Reads a chat completion whose cost litellm has computed; a stream contains it in its usage."""

    def add(self, response: Any) -> str:
        text = super().add(response)
        computed = (getattr(response, "_hidden_params", None) or {}).get("response_cost")
        if self.tokens is None or self.tokens.input == 0:  # litellm reports 0 if the provider reported nothing
            self.tokens = self.cost = None
        elif computed is not None:
            self.cost = dollars(computed)
        return text

    def end(self) -> None:
        """A stream without anything is no reply: litellm ends each with a chunk of its own, also a web page."""
        super().end()
        self.begun = bool(self.pieces or self.tokens or self.asks_for_tool or self.finish_reason != "stop")


@dataclass(eq=False, repr=False)
class LiteLLMAdapter(ProviderAdapter):
    """Calls a model through litellm.

    Args:
        api_key: the key; without one, its variable is read, which for models outside of `KEYS` litellm names.
        options: further arguments of `litellm.acompletion`.

    Raises:
        ConfigError: no key for the model was found.
    """

    api_key: str = ""
    _: KW_ONLY
    options: Mapping[str, Any] = field(default_factory=dict)

    default_url: ClassVar[str] = "the model's provider"
    needs_key: ClassVar[bool] = False
    reserved: ClassVar[frozenset[str]] = frozenset({"max_tokens", "messages", "model", "n", "stream", "stream_options"})
    reply_builder: ClassVar[type[ReplyBuilder]] = _PricedReplyBuilder
    extras: ClassVar[tuple[str, ...]] = ("stream_options",)
    models_path: str | None = field(default=None, init=False)  # `open` reads the window from litellm's table

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

    def open(self) -> Any:
        """Import litellm, and read the key and the context window that it knows."""
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # otherwise it is downloaded during the import
        with _without_dotenv():
            import litellm

        _guard_clients(litellm)
        litellm.suppress_debug_info = True  # otherwise it prints advice to stdout with every error
        if not self.api_key:
            # It only looks into the environment of the process; `env` contains the .env file, too.
            missing = litellm.validate_environment(self.model_name)["missing_keys"]
            named = (self.env.get(name, "").strip() for name in missing if name.endswith("_API_KEY"))
            self.api_key = next(filter(None, named), "")
        if self.context_window is None:
            names = (self.model_name, self.model_name.partition("/")[2])
            windows = (litellm.model_cost.get(name, {}).get("max_input_tokens") for name in names)
            self.context_window = next((window for window in windows if isinstance(window, int)), None)
        return _Module(litellm)

    def build_request(
        self, messages: Sequence[Message], max_tokens: int | None, schema: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The arguments of `litellm.acompletion`."""
        given = {"api_key": self.api_key or None, "api_base": self.base_url, "max_tokens": max_tokens}
        return {
            "model": self.model_name,
            "messages": [chat_message(m) for m in messages],
            # Its default is 6000 seconds; `num_retries` would add a second retry loop around the SDK's.
            "timeout": self.timeout,
            "max_retries": self.max_retries,
            **{name: value for name, value in given.items() if value is not None},
            **self.options,
            **(self.sampling_args or {}),
            **response_format(schema),
        }

    async def send(self, client: _Module, request: dict[str, Any], *, stream: bool) -> Any:
        """Call `litellm.acompletion`."""
        if not stream:
            return await client.complete(**request)
        usage = {} if "stream_options" in self.left_out else {"stream_options": {"include_usage": True}}
        return aclosing(await client.complete(**request, stream=True, **usage))

    @property
    def counts_requests(self) -> bool:
        """See `ProviderAdapter`."""
        return False

    @property
    def price_source(self) -> Mapping[str, str] | None:
        """None: litellm looks into its own price table."""
        return None

    @property
    def secrets(self) -> tuple[str, ...]:
        """The keys among the options, and those that litellm can find itself."""
        places = [*self.options.items(), *self.env.items(), *os.environ.items()]
        return (self.api_key, *(str(value) for name, value in places if _SECRET.search(name)))


@contextmanager
def _without_dotenv() -> Iterator[None]:
    """Keep litellm's import from loading the nearest `.env`, which would then count as the user's environment.

    It does so in its mode DEV, which is the default. A file in the working folder, or above litellm's own folder, could
    then name servers and proxies for the keys of the process.
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
    """Apply the rules of `http_options` to litellm's HTTP clients, for which it has no setting.

    It makes them in two places. A redirect would forward a header such as x-api-key.
    """
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler
    from litellm.llms.openai.common_utils import BaseOpenAILLM

    if not hasattr(AsyncHTTPHandler.create_client, "__wrapped__"):
        AsyncHTTPHandler.create_client = _guard(AsyncHTTPHandler.create_client, litellm)
        guarded = _guard(BaseOpenAILLM._get_async_http_client, litellm)  # noqa: SLF001
        BaseOpenAILLM._get_async_http_client = staticmethod(guarded)  # noqa: SLF001


def _guard(make_client: Callable[..., Any], litellm: Any) -> Callable[..., Any]:
    @wraps(make_client)
    def make(*args: Any, **options: Any) -> Any:
        client = make_client(*args, **options)
        if client is not None and client is not litellm.aclient_session:  # that one is the user's
            client.follow_redirects = False
            client.event_hooks = {kind: [*client.event_hooks[kind], *ours] for kind, ours in event_hooks().items()}
        return client

    return make
