"""The part of a client that differs between providers: `ProviderAdapter`, and `ReplyBuilder`, which reads replies.

The SDKs do not validate responses: if a server is not fully compatible, any field can be missing or have another type.
So every field is read with a default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from rlm_kernel.clients.estimates import MAX_TOKENS_OF_CALL
from rlm_kernel.clients.pricing import Tokens
from rlm_kernel.clients.refused_parts import ALTERNATION, SYSTEM, USER_LAST
from rlm_kernel.clients.requests_sent import count_requests
from rlm_kernel.clients.transport import CONNECT_SECONDS, OnHeaders, http_options, is_loopback, without_password
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlm_kernel.types import Message

MIN_SECRET_LENGTH = 8
"""Characters. A shorter key is a placeholder for a server without keys, such as EMPTY or ollama, and may be shown."""

_LIMITS = ("max_tokens", "max_completion_tokens")
"""Names of the longest reply in `sampling_args`."""

_MAX_DIGITS = 20
MAX_DOLLARS = 1e12
"""A larger number is not taken for a price."""


@dataclass(slots=True)
class ReplyBuilder:
    """A reply under construction. A subclass reads the responses of one API.

    Attributes:
        model: the model that answers, as the provider reports it.
        pieces: the text so far; empty until a text, even an empty one, has arrived.
        finish_reason: why the reply ended, or None.
        tokens: what was used, or None if the provider did not report it.
        cost: US dollars, as the provider reports them, or None.
        begun: whether any reply has arrived.
        complaint: the provider's message if there is no reply.
        error: the body, or the event, of an error; None: there was none.
        failed: whether the provider reported that it failed.
        streams: whether the reply comes in pieces.
        ended: whether a stream was ended by the provider, with or without a reason.
    """

    model: str
    pieces: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    tokens: Tokens | None = None
    cost: float | None = None
    begun: bool = False
    complaint: str = "the reply has no choices"
    error: Any = None
    failed: bool = False
    streams: bool = False
    ended: bool = False

    def add(self, response: Any) -> str:
        """Read a response, or one chunk of a stream, and return its text."""
        raise NotImplementedError

    def end(self) -> None:
        """Called after the last response."""


@dataclass(eq=False, repr=False)
class ProviderAdapter(ABC):
    """The settings of a client, and how its provider is called.

    Args:
        model_name: the model, as the provider names it.
        api_key: the key. A server without keys accepts any word.
        base_url: the endpoint; None selects the provider's own. The environment is not read here.
        backend: the name of the backend, for errors.
        key_variable: the environment variable of the key, for errors, or None.
        timeout: seconds without data from the provider after which a call fails.
        max_retries: how often the SDK retries after 408, 409, 429, 5xx, a timeout or a lost connection.
        max_tokens: the longest reply in tokens; overrides the limit of a call.
        sampling_args: fields of the request such as ``temperature``, merged into its body. `max_tokens` and
            `extra_body` in it are used like the arguments, and take precedence.
        context_window: tokens of prompt and reply together; None: determined with the first call, if possible.
        extra_body: further fields of the body; `sampling_args` override them.
        default_headers: headers of the user's for each request.
        default_query: fields of the query of each request's URL.
        http_client: an ``AsyncClient`` of the user's. The limits on the size of replies do not hold with it.
        headers: further headers of each request. The only headers from the environment are OpenAI's organisation and
            project, and they are sent to OpenAI only.
        prices: US dollars per million tokens, see `Prices`; they override what the provider reports.
        own_server: whether the server belongs to the user; if it is also on this machine, it is free of charge.
        env: the variables in which the SDK finds keys itself.

    Raises:
        ConfigError: the key cannot be sent, or `sampling_args` contain a reserved field.
    """

    model_name: str
    api_key: str
    base_url: str | None = None
    _: KW_ONLY
    backend: str = "openai"
    key_variable: str | None = "OPENAI_API_KEY"
    timeout: float = 300.0
    max_retries: int = 2
    max_tokens: int | None = None
    sampling_args: Mapping[str, Any] | None = None
    context_window: int | None = None
    extra_body: Mapping[str, Any] | None = None
    default_headers: Mapping[str, str] | None = None
    default_query: Mapping[str, Any] | None = None
    http_client: Any = None
    headers: Mapping[str, str] | None = None
    prices: Mapping[str, float] | None = None
    own_server: bool = False
    env: Mapping[str, str] = field(default_factory=dict)

    default_url: ClassVar[str]
    api: ClassVar[str] = "OpenAI"
    url_form: ClassVar[str] = "it usually ends in /v1"
    default_max_tokens: ClassVar[int | None] = None
    needs_key: ClassVar[bool] = True
    reserved: ClassVar[frozenset[str]]
    """Fields of a request that `sampling_args` may not contain, because they are set elsewhere."""
    reply_builder: ClassVar[type[ReplyBuilder]]
    models_path: str | None = field(default="/models", init=False)
    """The path of the list of models; None if it does not contain context windows."""
    left_out: frozenset[str] = field(default=frozenset(), init=False)
    """Parts of requests that the server has refused, see `refused_parts`."""
    allowed_tokens: int | None = field(default=None, init=False)
    """The longest reply in tokens that the server has allowed in a refusal, or None."""
    extras: ClassVar[tuple[str, ...]] = ()
    """Names of further parts of its requests that can be left out."""
    forms: ClassVar[frozenset[str]] = frozenset({SYSTEM, USER_LAST, ALTERNATION})
    """The forms of its requests that can be left out."""
    on_headers: OnHeaders | None = field(default=None, init=False)
    """Called with the status and the headers of each response."""
    shows_schema: bool = field(default=False, init=False)
    """Whether the mode for structured output shows the schema to the model. If not, the messages contain it too."""

    def __post_init__(self) -> None:
        if self.api_key or self.needs_key:
            check_key(self.api_key, self.key_variable)
        self._take_sampling()
        self.headers = {**(self.headers or {}), **(self.default_headers or {})}
        if wrong := sorted(self.reserved & (self.sampling_args or {}).keys()):
            raise ConfigError(
                f"sampling_args may not hold {', '.join(wrong)}: it is for fields such as temperature, top_p or "
                "seed, and for max_tokens and extra_body."
            )

    def _take_sampling(self) -> None:
        """Use the limit of a reply and `extra_body` in `sampling_args` like the arguments. None counts as not given."""
        sampling = {name: value for name, value in (self.sampling_args or {}).items() if value is not None}
        for name in _LIMITS:
            if (limit := sampling.pop(name, None)) is not None:
                if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
                    raise ConfigError(f"sampling_args[{name!r}] must be a whole number of tokens, at least 1.")
                self.max_tokens = limit
        if isinstance(extra := sampling.get("extra_body"), Mapping):
            del sampling["extra_body"]
            self.extra_body = {**(self.extra_body or {}), **extra}
        self.sampling_args = sampling

    @abstractmethod
    def open(self) -> Any:
        """Build the SDK's client, which has a coroutine `close`. Called in a thread."""

    @abstractmethod
    def build_request(
        self, messages: Sequence[Message], max_tokens: int | None, schema: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The arguments of the SDK's call."""

    @abstractmethod
    async def send(self, client: Any, request: dict[str, Any], *, stream: bool) -> Any:
        """Call the SDK. The result is a response, or with `stream` an async context manager that gives chunks."""

    def builder(self, request: Mapping[str, Any]) -> ReplyBuilder:  # noqa: ARG002
        """A reader for the reply to a request."""
        return self.reply_builder(self.model_name)

    def keep(self, messages: Sequence[Message], text: str, builder: ReplyBuilder) -> None:  # noqa: B027
        """Keep what the next turn of a conversation sends besides the text of its replies."""

    def accepts_schema(self, _: dict[str, Any]) -> bool:
        """Whether the provider's mode for structured output supports this schema. The SDK is imported by then."""
        return True

    def check_other(self, name: str) -> None:  # noqa: B027 (most providers take any name)
        """Check the name of another model, which a cell gives.

        Raises:
            ConfigError: with this name, the call would go elsewhere or use another key.
        """

    @property
    def url(self) -> str:
        """The endpoint."""
        return self.base_url or self.default_url

    @property
    def secrets(self) -> tuple[str, ...]:
        """The keys, which must not appear in messages."""
        return (self.api_key, *self.header_secrets)

    @property
    def header_secrets(self) -> tuple[str, ...]:
        """The values of the user's own headers: any of them may be a key."""
        return tuple((self.default_headers or {}).values())

    @property
    def shown_url(self) -> str:
        """The endpoint for messages, without password and query."""
        return without_password(self.url)

    @property
    def key_source(self) -> str:
        """How the user sets the key."""
        argument = "api_key in backend_kwargs"
        if self.key_variable is None:
            return argument
        return f"{argument}, or the variable {self.key_variable} (in the environment or a .env file)"

    def redact(self, text: str) -> str:
        """The text without the keys."""
        for secret in self._long_secrets():
            text = text.replace(secret, "[api key]")
        return text

    def has_secret(self, text: str) -> bool:
        """Whether the text contains a key."""
        return any(secret in text for secret in self._long_secrets())

    def _long_secrets(self) -> list[str]:
        # The longest first: one may be a part of another.
        return sorted((s for s in self.secrets if len(s) >= MIN_SECRET_LENGTH), key=len, reverse=True)

    @property
    def price_source(self) -> Mapping[str, str] | None:
        """The provider's key in the price table, or None."""
        return None if is_loopback(self.url) else {"provider_api_url": self.url}

    def price_names(self, answered_by: str) -> tuple[str, ...]:
        """Names of the model to look up in the price table, the best first. The requested name can be an alias."""
        return (answered_by, self.model_name)

    @property
    def counts_requests(self) -> bool:
        """Whether the HTTP client counts them in `requests_sent`."""
        return self.http_client is None

    @property
    def connect_timeout(self) -> float:
        """Seconds for opening a connection."""
        return min(self.timeout, CONNECT_SECONDS)

    def sdk_options(self, sdk: Any) -> dict[str, Any]:
        """The arguments of a client of the SDK of OpenAI or Anthropic."""
        return {
            "api_key": self.api_key,
            "base_url": self.url,
            "timeout": sdk.Timeout(self.timeout, connect=self.connect_timeout),
            "max_retries": self.max_retries,
            "default_headers": self.headers,
            "default_query": self.default_query,
            "http_client": self.http_client or _http_client(sdk, http_options(self.url, self.on_headers)),
        }


def _http_client(sdk: Any, options: dict[str, Any]) -> Any:
    """The SDK's HTTP client over aiohttp if that is installed: it takes half the time of the SDK's default."""
    try:
        return count_requests(sdk.DefaultAioHttpClient(**options))
    except RuntimeError:  # the SDK's extra `aiohttp` is not installed
        return count_requests(sdk.DefaultAsyncHttpxClient(**options))


def check_key(key: str, variable: str | None) -> None:
    """Check that a key can be sent.

    Raises:
        ConfigError: it is empty or has characters that a header cannot contain. The key is not shown.
    """
    if not (key and key.isascii() and key.isprintable() and " " not in key):
        where = f"api_key (or {variable})" if variable else "api_key"
        raise ConfigError(
            f"{where} is empty or holds a space, a line break or a letter outside ASCII, so "
            "it cannot be sent: copy it again. A server without keys accepts any word, such as 'EMPTY'."
        )


def field_of(record: Any, name: str) -> Any:
    """A field of decoded JSON, or of an SDK's object; None if it is missing."""
    return record.get(name) if isinstance(record, Mapping) else getattr(record, name, None)


def text_of(record: Any, name: str) -> str:
    """A field that is a text; empty if it is missing or of another type."""
    value = field_of(record, name)
    return value if isinstance(value, str) else ""


def token_count(record: Any, name: str) -> int | None:
    """A number of tokens; None if it is missing or invalid, such as the -1 of a server that does not know."""
    value = field_of(record, name)
    is_digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < _MAX_DIGITS
    if is_digits or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS_OF_CALL
    return value if isinstance(value, int) and fits else None


def dollars(value: Any) -> float | None:
    """US dollars; None if the value is not an amount."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MAX_DOLLARS
    return float(value) if known else None
