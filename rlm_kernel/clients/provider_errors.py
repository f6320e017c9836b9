"""Convert every failure of a call through an SDK into one `LMError` that names the next step.

`lm_errors`, and `opening_errors` before the first call, are the only places where foreign errors are converted. The
table of next steps is keyed by class name and looked up along the base classes of the error. So no SDK is imported
here, a class that a later SDK adds is covered by its base, and the SDKs share the table, because they name their errors
alike (openai 2 and 3, anthropic, litellm, and the openai that portkey-ai brings along). The transport errors of httpx
and httpx2 are one entry too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rlm_kernel.clients.reply_size import UnreadableReply
from rlm_kernel.errors import ConfigError, ContextOverflowError, LMError, refused
from rlm_kernel.text import clip_end, plain

if TYPE_CHECKING:
    from rlm_kernel.clients.endpoint import Endpoint
    from rlm_kernel.types import Usage

MAX_QUOTE = 500
"""Characters of a provider's own words that a message repeats; error pages can be long."""

_MAX_READ = 100_000
"""Characters of a provider's own words that are looked at."""

_MAX_NESTED = 8
"""Objects inside one another in which its words are looked for."""

_OVERFLOW = (
    "The conversation is longer than the model's context window: send less text per call, or choose a model with a "
    "larger window."
)
_TROUBLE = (
    "The provider is in trouble ({retries} retries): ask again later, or look at the server at {url} if it is yours."
)
_REFUSED = "The request was refused as it stands: check model_name, max_tokens and sampling_args in backend_kwargs."
_NOT_AN_API = "Does {url} speak the {api} API? Check base_url: {url_form}."
_SDK = "The {api} SDK refused the call: check backend_kwargs."
_BROKEN_OFF = "The reply broke off. Ask again; if it happens often, look at the server at {url}."

NEXT_STEPS: Mapping[str, str] = MappingProxyType(
    {
        # Kinds that no class name tells.
        "context overflow": _OVERFLOW,
        "quota": "The account has no credit or quota left ({retries} retries): add some, or use another key: "
        "{key_source}.",
        "broken off": _BROKEN_OFF,
        "not an API": _NOT_AN_API,
        "redirect": "No redirect is followed, so that the key goes to no other server: if you trust the address that "
        "{url} names, give it as base_url.",
        "unreadable": "Nothing more of it was read. Look at the server at {url} if it is yours, or use another one.",
        "no text": "Ask in other words, or choose another model_name.",
        # Classes of the SDK.
        "AuthenticationError": "Check the key: {key_source}.",
        "PermissionDeniedError": "This key may not do that: ask for access to {model!r}, choose another "
        "model_name, or use another key: {key_source}.",
        "NotFoundError": "Check model_name ({model!r}) and base_url ({url}; {url_form}).",
        "BadRequestError": _REFUSED,
        "UnprocessableEntityError": _REFUSED,
        "RateLimitError": "Too many calls or tokens at a time ({retries} retries): wait a little, ask less "
        "at once, raise max_retries in backend_kwargs, or raise the account's limit.",
        "InternalServerError": _TROUBLE,
        "APIStatusError": "The provider refused ({retries} retries); its own words say why.",
        "APITimeoutError": "No answer within {timeout:g} s ({retries} retries): raise timeout in "
        "backend_kwargs, ask for a shorter reply with max_tokens, or look whether {url} is reachable.",
        "APIConnectionError": "Is the server at {url} running, and can this machine reach it ({retries} "
        "retries)? Check base_url.",
        "APIResponseValidationError": _NOT_AN_API,
        "APIError": _BROKEN_OFF,
        "OpenAIError": _SDK,
        "AnthropicError": _SDK,
        # Classes of litellm that lie beside those of openai.
        "ContextWindowExceededError": _OVERFLOW,
        "ServiceUnavailableError": _TROUBLE,
        "BadGatewayError": _TROUBLE,
        # What the SDK lets through: bodies that cannot be decoded and, in openai 2, a stream that is cut.
        "JSONDecodeError": _NOT_AN_API,
        "UnicodeDecodeError": _NOT_AN_API,
        "RecursionError": _NOT_AN_API,  # JSON that is nested too deeply
        "TimeoutException": "Nothing came for {timeout:g} s: raise timeout in backend_kwargs.",
        "HTTPError": _BROKEN_OFF,
    }
)

UNSENT = ("APIConnectionError", "OpenAIError", "AnthropicError")
"""Kinds of failures before a request was sent. One that broke off afterwards is of another kind."""

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
_BREAKS = ("ReadError", "RemoteProtocolError", "WriteError")


def lm_error(
    endpoint: Endpoint,
    what: str,
    kind: str,
    *,
    retries: int = 0,
    status: int | None = None,
    request_id: str | None = None,
    usage: Usage | None = None,
) -> LMError:
    """An `LMError`: who failed, in whose words, and the next step for this kind of failure.

    Args:
        endpoint: who was asked.
        what: what happened, in the provider's words where it has some.
        kind: a key of `NEXT_STEPS`.
        retries: how often the SDK had asked again.
        status: the HTTP status, if there was a response.
        request_id: the provider's id of the request.
        usage: what the provider says that the call used, or None.
    """
    step = NEXT_STEPS[kind].format(
        url=endpoint.url,
        model=endpoint.model,
        key_source=endpoint.key_source,
        timeout=endpoint.timeout,
        api=endpoint.api,
        url_form=endpoint.url_form,
        retries=retries,
    )
    place = f" (HTTP {status})" if status else ""
    what = plain(what).rstrip(". ")  # before the key is hidden: what is removed may stand between its letters
    message = endpoint.hidden(f"{endpoint.backend}, model {endpoint.model!r}{place}: {what}. {step}")
    shown_id = None if request_id is None else endpoint.hidden(plain(request_id[:MAX_QUOTE]))
    raised = ContextOverflowError if kind == "context overflow" else LMError
    return raised(
        message,
        backend=endpoint.backend,
        model=endpoint.model,
        status=status,
        request_id=shown_id,
        requests=0 if kind in UNSENT or refused(status) else 1 + retries,
        usage=usage,
    )


@contextmanager
def lm_errors(endpoint: Endpoint) -> Iterator[None]:
    """Convert what the SDK raises.

    Raises:
        LMError: for every error that `NEXT_STEPS` knows; all others go through.
    """
    try:
        yield
    except UnreadableReply as error:
        raise lm_error(endpoint, str(error), "unreadable", status=error.status) from None
    except Exception as error:
        kind = _kind(error)
        if kind is None:
            raise
        raise _convert(error, kind, endpoint) from _cause(error, endpoint)


@contextmanager
def opening_errors(endpoint: Endpoint) -> Iterator[None]:
    """Convert what goes wrong when an SDK is imported and its client is built.

    Raises:
        ConfigError: for every error; nothing was asked yet.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 (whatever it is, the call cannot be made)
        words = endpoint.hidden(_own_words(error))
        raise ConfigError(
            f"{endpoint.backend}, model {endpoint.model!r}: its SDK does not start: {words}. Check "
            f"base_url ({endpoint.url}), the installation, and the environment's variables for proxies "
            "(ALL_PROXY, HTTPS_PROXY, HTTP_PROXY) and certificates (SSL_CERT_FILE)."
        ) from _cause(error, endpoint)


def refuses_schema(error: LMError) -> bool:
    """Whether a provider refused to answer by a schema, or by this one. Then it can still be asked in words.

    Only its own words count, and the name of the model is none of them.
    """
    name = re.compile(rf"(?<!\w){re.escape(error.model.rpartition('/')[2])}(?!\w)")
    said = name.sub("", clip_end(_words(error.__cause__ or error), MAX_QUOTE)).lower()
    return error.status in {400, 404, 422, 500, 501} and any(mark in said for mark in _SCHEMAS)


def asks_for_other_limit_name(error: Exception) -> bool:
    """Whether an SDK's error says that the model takes ``max_completion_tokens`` in the place of ``max_tokens``."""
    status = getattr(error, "status_code", None)
    return status in {400, 422} and _OTHER_LIMIT_NAME.search(_words(error)) is not None


def _convert(error: Exception, kind: str, endpoint: Endpoint) -> LMError:
    return lm_error(
        endpoint,
        clip_end(endpoint.hidden(_words(error)), MAX_QUOTE),  # hidden first: half a key would not be found
        kind,
        retries=_retries(error),
        status=getattr(error, "status_code", None),
        request_id=getattr(error, "request_id", None),
    )


def _kind(error: Exception) -> str | None:
    """The key of the error in `NEXT_STEPS`, or None when it is not a provider's."""
    status = getattr(error, "status_code", None)
    if status in {400, 413, 422} and _says(error, _OVERFLOWS):
        return "context overflow"
    if status == 402 or (status in {400, 403, 429} and _says(error, _UNPAID)):  # noqa: PLR2004 (payment required)
        return "quota"
    if status in _REDIRECTS:
        return "redirect"
    names = [ancestor.__name__ for ancestor in type(error).__mro__]
    if "APIConnectionError" in names and type(error.__cause__).__name__ in _BREAKS:
        return "broken off"
    # It ended when nobody took the connection, long before `timeout`.
    if "APITimeoutError" in names and type(error.__cause__).__name__ == "ConnectTimeout":
        return "APIConnectionError"
    return next((name for name in names if name in NEXT_STEPS), None)


def _says(error: Exception, marks: Sequence[str]) -> bool:
    said = f"{getattr(error, 'code', '')} {getattr(error, 'type', '')} {str(error)[:_MAX_READ]} {_words(error)}".lower()
    return any(mark in said for mark in marks)


def _words(error: BaseException) -> str:
    """What the provider said, else what the SDK and its transport said, as text."""
    words = str(_redirection(error) or _quote(getattr(error, "body", None)) or _own_words(error))
    return plain(words[:_MAX_READ])


def _redirection(error: BaseException) -> str | None:
    """Where a redirect leads."""
    if getattr(error, "status_code", None) not in _REDIRECTS:
        return None
    location = getattr(getattr(error, "response", None), "headers", {}).get("location")
    return f"the server redirects to {location}" if location else None


def _quote(body: Any, room: int = _MAX_NESTED) -> Any:
    """What an error body says: OpenAI's is handed over unwrapped, Anthropic's as it came; Google's is a list."""
    if isinstance(body, str):
        return body.strip()
    if isinstance(body, list) and room:
        return next(filter(None, (_quote(part, room - 1) for part in body if isinstance(part, Mapping))), None)
    if not isinstance(body, Mapping) or not room:
        return None
    return body.get("message") or body.get("detail") or _quote(body.get("error"), room - 1)


def _own_words(error: BaseException) -> str:
    words = str(error)[:_MAX_READ].rstrip(".") or type(error).__name__
    cause = str(error.__cause__ or "")
    return f"{words} ({cause})" if cause and cause not in words else words


def _retries(error: Exception) -> int:
    """How often the SDK had asked again; it counts in a header of the request."""
    headers = getattr(getattr(error, "request", None), "headers", {})
    return int(headers.get("x-stainless-retry-count", 0))


def _cause(error: Exception, endpoint: Endpoint) -> Exception | None:
    """The error, if it can be shown: a traceback prints its words, and a header that cannot be sent quotes the key."""
    return None if _mentions(error, endpoint) or not _is_text(error) else error


def _is_text(error: BaseException | None) -> bool:
    """Whether an error and those behind it hold nothing that a terminal would obey."""
    while error is not None:
        words = str(error).replace("\r\n", "\n")
        if len(words) > _MAX_READ or plain(words) != words:
            return False
        error = error.__cause__ or error.__context__
    return True


def _mentions(error: BaseException | None, endpoint: Endpoint) -> bool:
    while error is not None:
        if endpoint.is_in(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
