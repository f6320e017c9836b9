"""Convert every failure of a call through an SDK into one `LMError` that names the next step.

`lm_errors`, and `opening_errors` before the first call, are the only places that convert foreign errors. The table of
next steps is keyed by class name and searched along the base classes of the error. So no SDK is imported here, a class
that a later SDK adds is covered by its base, and the SDKs share the table, because they use the same names (openai 2
and 3, anthropic, litellm, and the openai inside portkey-ai). So do the transport errors of httpx and httpx2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rlm_kernel.clients.requests_sent import BREAKS, causes
from rlm_kernel.clients.transport import UnreadableReply
from rlm_kernel.errors import ConfigError, ContextOverflowError, LMError, refused
from rlm_kernel.text import clip_end, plain

if TYPE_CHECKING:
    from rlm_kernel.clients.provider import ProviderAdapter
    from rlm_kernel.types import Usage

MAX_QUOTE = 500
"""Characters of a provider's message that an error repeats; error pages can be long."""

_MAX_READ = 100_000
"""Characters of a provider's message that are examined."""

_MAX_NESTED = 8
"""Depth of nested objects in which the message is searched."""

_OVERFLOW = (
    "The conversation is longer than the model's context window: send less text per call, or choose a model with a "
    "larger window."
)
_TROUBLE = (
    "The provider is in trouble ({retries} retries): try again later, or check the server at {url} if it is yours."
)
_REFUSED = "The request was refused: check model_name, max_tokens and sampling_args in backend_kwargs."
_NOT_AN_API = "Does {url} speak the {api} API? Check base_url: {url_form}."
_SDK = "The {api} SDK refused the call: check backend_kwargs."
_BROKEN_OFF = "The reply broke off. Try again; if it happens often, check the server at {url}."

NEXT_STEPS: Mapping[str, str] = MappingProxyType(
    {
        # Kinds that are not visible in the class name.
        "context overflow": _OVERFLOW,
        "quota": "The account has no credit or quota left ({retries} retries): add some, or use another key: "
        "{key_source}.",
        "broken off": _BROKEN_OFF,
        "not an API": _NOT_AN_API,
        "redirect": "Redirects are not followed, because they would send the key to another server: if you trust the "
        "address, give it as base_url in place of {url}.",
        "unreadable": "It was not read any further. Check the server at {url} if it is yours, or use another one.",
        # Classes of the SDK.
        "AuthenticationError": "Check the key: {key_source}.",
        "PermissionDeniedError": "This key has no permission for that: ask for access to {model!r}, choose another "
        "model_name, or use another key: {key_source}.",
        "NotFoundError": "Check model_name ({model!r}) and base_url ({url}; {url_form}).",
        "BadRequestError": _REFUSED,
        "UnprocessableEntityError": _REFUSED,
        "RateLimitError": "Too many calls or tokens at a time ({retries} retries): wait a little, make fewer "
        "calls at once, raise max_retries in backend_kwargs, or raise the account's limit.",
        "InternalServerError": _TROUBLE,
        "APIStatusError": "The provider refused ({retries} retries); see its message.",
        "APITimeoutError": "No answer within {timeout:g} s ({retries} retries): raise timeout in "
        "backend_kwargs, ask for a shorter reply with max_tokens, or check whether {url} is reachable.",
        "APIConnectionError": "Is the server at {url} running, and can this machine reach it ({retries} "
        "retries)? Check base_url.",
        "APIResponseValidationError": _NOT_AN_API,
        "APIError": _BROKEN_OFF,
        "OpenAIError": _SDK,
        "AnthropicError": _SDK,
        # Classes of litellm that are not subclasses of these.
        "ContextWindowExceededError": _OVERFLOW,
        "ServiceUnavailableError": _TROUBLE,
        "BadGatewayError": _TROUBLE,
        # Errors that the SDK does not convert: bodies that cannot be decoded and, in openai 2, a stream that is cut.
        "JSONDecodeError": _NOT_AN_API,
        "UnicodeDecodeError": _NOT_AN_API,
        "RecursionError": _NOT_AN_API,  # JSON that is nested too deeply
        "TimeoutException": "No data for {timeout:g} s: raise timeout in backend_kwargs.",
        "HTTPError": _BROKEN_OFF,
        "ClientError": _BROKEN_OFF,  # aiohttp's base, where the SDK's transport does not convert it
    }
)

UNSENT = ("APIConnectionError", "OpenAIError", "AnthropicError")
"""Kinds of failures before a request was sent. A connection that broke afterwards is of another kind."""

_OVERFLOWS = (
    "context_length_exceeded",
    "exceed_context_size",
    "context length",
    "context window",
    "context size",
    "prompt is too long",
    "exceed context limit",
    "exceeds the maximum number of tokens allowed",  # Gemini
    "maximum prompt length is",  # xAI
)
_SCHEMAS = ("schema", "response_format", "output_config", "output format", "structured output", "grammar", "guided")
_UNPAID = ("insufficient_quota", "billing_error", "credit balance is too low")
_OTHER_LIMIT_NAME = re.compile(r"\buse\W+max_completion_tokens\b", re.IGNORECASE)
_REDIRECTS = (301, 302, 303, 307, 308)


def lm_error(
    provider: ProviderAdapter,
    what: str,
    kind: str,
    *,
    retries: int = 0,
    status: int | None = None,
    request_id: str | None = None,
    usage: Usage | None = None,
) -> LMError:
    """An `LMError`: backend and model, the provider's message, and the next step for this kind of failure.

    Args:
        provider: the provider of the call.
        what: what happened; the provider's own message if there is one.
        kind: a key of `NEXT_STEPS`.
        retries: how often the SDK had retried.
        status: the HTTP status, if there was a response.
        request_id: the provider's id of the request.
        usage: the usage of the call that the provider reports, or None.
    """
    step = NEXT_STEPS[kind].format(
        url=provider.shown_url,
        model=provider.model_name,
        key_source=provider.key_source,
        timeout=provider.timeout,
        api=provider.api,
        url_form=provider.url_form,
        retries=retries,
    )
    place = f" (HTTP {status})" if status else ""
    what = plain(what).rstrip(". ")  # before redact: removed characters may split a key
    message = provider.redact(f"{provider.backend}, model {provider.model_name!r}{place}: {what}. {step}")
    shown_id = None if request_id is None else provider.redact(plain(request_id[:MAX_QUOTE]))
    raised = ContextOverflowError if kind == "context overflow" else LMError
    return raised(
        message,
        backend=provider.backend,
        model=provider.model_name,
        status=status,
        request_id=shown_id,
        requests=0 if kind in UNSENT or refused(status) else 1 + retries,
        usage=usage,
    )


@contextmanager
def lm_errors(provider: ProviderAdapter) -> Iterator[None]:
    """Convert the errors of an SDK's call.

    Raises:
        LMError: for every error in `NEXT_STEPS`; all others are raised unchanged.
    """
    try:
        yield
    except UnreadableReply as error:
        raise lm_error(provider, str(error), "unreadable", status=error.status) from None
    except Exception as error:
        kind = _kind(error)
        if kind is None:
            raise
        raise _convert(error, kind, provider) from _showable(error, provider)


@contextmanager
def opening_errors(provider: ProviderAdapter) -> Iterator[None]:
    """Convert the errors of importing an SDK and building its client.

    Raises:
        ConfigError: for every error; no request was sent.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 (any error prevents the call)
        message = provider.redact(_own_message(error))
        raise ConfigError(
            f"{provider.backend}, model {provider.model_name!r}: its SDK does not start: {message}. Check "
            f"base_url ({provider.shown_url}), the installation, and the environment's variables for proxies "
            "(ALL_PROXY, HTTPS_PROXY, HTTP_PROXY) and certificates (SSL_CERT_FILE)."
        ) from _showable(error, provider)


def refuses_schema(error: LMError) -> bool:
    """Whether a provider does not support schemas, or not this one. The schema can then be sent as text.

    Only the provider's message is examined, without the name of the model.
    """
    name = re.compile(rf"(?<!\w){re.escape(error.model.rpartition('/')[2])}(?!\w)")
    message = name.sub("", clip_end(_message_of(error.__cause__ or error), MAX_QUOTE)).lower()
    return error.status in {400, 404, 422, 500, 501} and any(mark in message for mark in _SCHEMAS)


def words_of(error: Exception) -> str:
    """The provider's message in an SDK's error, with the names of the field and of the kind, if it gives them."""
    named = (getattr(error, name, None) for name in ("param", "code"))
    return " ".join([_message_of(error), *(f"{name!r}" for name in named if isinstance(name, str))])


def asks_for_other_limit_name(error: Exception) -> bool:
    """Whether an SDK's error says that the model takes ``max_completion_tokens`` in the place of ``max_tokens``."""
    status = getattr(error, "status_code", None)
    return status in {400, 422} and _OTHER_LIMIT_NAME.search(_message_of(error)) is not None


def _convert(error: Exception, kind: str, provider: ProviderAdapter) -> LMError:
    return lm_error(
        provider,
        clip_end(provider.redact(_message_of(error)), MAX_QUOTE),  # redacted first: half a key would not be found
        kind,
        retries=_retries(error),
        status=getattr(error, "status_code", None),
        request_id=getattr(error, "request_id", None),
    )


def _kind(error: Exception) -> str | None:
    """The key of the error in `NEXT_STEPS`, or None if it is not a provider's."""
    status = getattr(error, "status_code", None)
    if status in {400, 413, 422} and _contains(error, _OVERFLOWS):
        return "context overflow"
    if status == 402 or (status in {400, 403, 429} and _contains(error, _UNPAID)):  # noqa: PLR2004 (payment required)
        return "quota"
    if status in _REDIRECTS:
        return "redirect"
    names = [ancestor.__name__ for ancestor in type(error).__mro__]
    if "APIConnectionError" in names and not BREAKS.isdisjoint(causes(error)):
        return "broken off"
    # No connection was accepted; this ends long before `timeout`.
    if "APITimeoutError" in names and type(error.__cause__).__name__ == "ConnectTimeout":
        return "APIConnectionError"
    return next((name for name in names if name in NEXT_STEPS), None)


def _contains(error: Exception, marks: Sequence[str]) -> bool:
    fields = (getattr(error, "code", ""), getattr(error, "type", ""), str(error)[:_MAX_READ], _message_of(error))
    text = " ".join(map(str, fields)).lower()
    return any(mark in text for mark in marks)


def _message_of(error: BaseException) -> str:
    """The provider's message; without one, the message of the SDK and its transport."""
    message = str(_redirect_target(error) or _find_message(getattr(error, "body", None)) or _own_message(error))
    return plain(message[:_MAX_READ])


def _redirect_target(error: BaseException) -> str | None:
    if getattr(error, "status_code", None) not in _REDIRECTS:
        return None
    location = getattr(getattr(error, "response", None), "headers", {}).get("location")
    return f"the server redirects to {location}" if location else None


def _find_message(body: Any, depth: int = _MAX_NESTED) -> Any:
    """The message in an error body. OpenAI's SDK unwraps it, Anthropic's does not; Google's is a list."""
    if isinstance(body, str):
        return body.strip()
    if isinstance(body, list) and depth:
        return next(filter(None, (_find_message(part, depth - 1) for part in body if isinstance(part, Mapping))), None)
    if not isinstance(body, Mapping) or not depth:
        return None
    return body.get("message") or body.get("detail") or _find_message(body.get("error"), depth - 1)


def _own_message(error: BaseException) -> str:
    message = str(error)[:_MAX_READ].rstrip(".") or type(error).__name__
    cause = str(error.__cause__ or "")
    if cause and type(error.__cause__).__name__ == "ConnectTimeout":  # the SDK says "timed out", also of a refused one
        return cause
    return f"{message} ({cause})" if cause and cause not in message else message


def _retries(error: Exception) -> int:
    """How often the SDK had retried; it counts in a header of the request."""
    headers = getattr(getattr(error, "request", None), "headers", {})
    return int(headers.get("x-stainless-retry-count", 0))


def _showable(error: Exception, provider: ProviderAdapter) -> Exception | None:
    """The error if a traceback may print it: neither it nor its causes contain a key or control characters."""
    chained: BaseException | None = error
    while chained is not None:
        message = str(chained).replace("\r\n", "\n")
        if provider.has_secret(str(chained)) or len(message) > _MAX_READ or plain(message) != message:
            return None
        chained = chained.__cause__ or chained.__context__
    return error
