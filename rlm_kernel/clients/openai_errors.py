"""Every failure of a call through the OpenAI SDK as one `LMError` that says what to do next.

`lm_errors` is the only place where foreign errors are converted. The table of next steps is keyed by class
name and looked up along the ancestors of what was raised: so nothing of the SDK is imported here, a class
that a later SDK adds is covered by its base, and the transport errors of both majors (httpx, httpx2) are one
entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from rlm_kernel.errors import LMError

LONGEST_QUOTE = 500
"""Characters of a provider's own words that a message repeats; error pages can be long."""

_REFUSED = "The request was refused as it stands: check model_name, max_tokens and sampling_args in backend_kwargs."
_NOT_AN_API = "Does {url} speak the OpenAI API? A base_url usually ends in /v1."
_BROKEN_OFF = "The reply broke off. Ask again; if it happens often, look at the server at {url}."

NEXT_STEPS: Mapping[str, str] = MappingProxyType(
    {
        # Kinds that no class name tells.
        "context overflow": "The conversation is longer than the model's context window: send less text per "
        "call, or choose a model with a larger window.",
        "quota": "The account has no credit or quota left ({retries} retries): add some, or use another key "
        "(api_key, or the variable {key_variable}).",
        "broken off": _BROKEN_OFF,
        "not an API": _NOT_AN_API,
        "no text": "Ask in other words, or choose another model_name.",
        # Classes of the SDK.
        "AuthenticationError": "Check the key: api_key in backend_kwargs, or the variable {key_variable} (in "
        "the environment or a .env file).",
        "PermissionDeniedError": "This key may not do that: ask for access to {model!r}, choose another "
        "model_name, or use another key (api_key, or the variable {key_variable}).",
        "NotFoundError": "Check model_name ({model!r}) and base_url ({url}; it usually ends in /v1).",
        "BadRequestError": _REFUSED,
        "UnprocessableEntityError": _REFUSED,
        "RateLimitError": "Too many calls or tokens at a time ({retries} retries): wait a little, ask less "
        "at once, raise max_retries in backend_kwargs, or raise the account's limit.",
        "InternalServerError": "The provider is in trouble ({retries} retries): ask again later, or look at "
        "the server at {url} if it is yours.",
        "APIStatusError": "The provider refused ({retries} retries); its own words say why.",
        "APITimeoutError": "No answer within {timeout:g} s ({retries} retries): raise timeout in "
        "backend_kwargs, ask for a shorter reply with max_tokens, or look whether {url} is reachable.",
        "APIConnectionError": "Is the server at {url} running, and can this machine reach it ({retries} "
        "retries)? Check base_url.",
        "APIResponseValidationError": _NOT_AN_API,
        "APIError": _BROKEN_OFF,
        "OpenAIError": "The OpenAI SDK refused the call: check backend_kwargs.",
        # What the SDK lets through: bodies that cannot be decoded and, in openai 2, a stream that is cut.
        "JSONDecodeError": _NOT_AN_API,
        "UnicodeDecodeError": _NOT_AN_API,
        "TimeoutException": "Nothing came for {timeout:g} s: raise timeout in backend_kwargs.",
        "HTTPError": _BROKEN_OFF,
    }
)

_OVERFLOWS = (
    "context_length_exceeded",
    "exceed_context_size",
    "context length",
    "context window",
    "context size",
    "prompt is too long",
)
_BREAKS = ("ReadError", "RemoteProtocolError", "WriteError")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Whom a call asks: all that its error messages need to know.

    Attributes:
        backend: the name of the backend.
        model: the name of the model.
        url: where it is, fit to be shown.
        key_variable: the environment variable of the key.
        timeout: seconds.
        secret: the key, so that it can be kept out of messages.
    """

    backend: str
    model: str
    url: str
    key_variable: str
    timeout: float
    secret: str = field(repr=False)

    def failure(
        self,
        what: str,
        kind: str,
        *,
        retries: int = 0,
        status: int | None = None,
        request_id: str | None = None,
    ) -> LMError:
        """An `LMError`: who failed, in whose words, and the next step for this kind of failure."""
        step = NEXT_STEPS[kind].format(
            url=self.url,
            model=self.model,
            key_variable=self.key_variable,
            timeout=self.timeout,
            retries=retries,
        )
        place = f" (HTTP {status})" if status else ""
        message = self.hidden(f"{self.backend}, model {self.model!r}{place}: {what.rstrip('. ')}. {step}")
        return LMError(message, backend=self.backend, model=self.model, status=status, request_id=request_id)

    def hidden(self, text: str) -> str:
        """The text without the key."""
        return text.replace(self.secret, "[api key]") if self.secret else text


@contextmanager
def lm_errors(endpoint: Endpoint) -> Iterator[None]:
    """Convert what the SDK raises.

    Raises:
        LMError: for every error that `NEXT_STEPS` knows; all others go through.
    """
    try:
        yield
    except Exception as error:
        kind = _kind(error)
        if kind is None:
            raise
        # A traceback prints the cause's own words, and a header that cannot be sent quotes the key.
        cause = None if _mentions(error, endpoint.secret) else error
        raise _converted(error, kind, endpoint) from cause


def _converted(error: Exception, kind: str, endpoint: Endpoint) -> LMError:
    return endpoint.failure(
        _words(error),
        kind,
        retries=_retries(error),
        status=getattr(error, "status_code", None),
        request_id=getattr(error, "request_id", None),
    )


def _kind(error: Exception) -> str | None:
    """The key of the error in `NEXT_STEPS`, or None when it is not a provider's."""
    status = getattr(error, "status_code", None)
    if status in {400, 413, 422} and _is_overflow(error):
        return "context overflow"
    if status == 402 or getattr(error, "code", None) == "insufficient_quota":  # noqa: PLR2004 (payment required)
        return "quota"
    names = [ancestor.__name__ for ancestor in type(error).__mro__]
    if "APIConnectionError" in names and type(error.__cause__).__name__ in _BREAKS:
        return "broken off"
    return next((name for name in names if name in NEXT_STEPS), None)


def _is_overflow(error: Exception) -> bool:
    said = f"{getattr(error, 'code', '')} {getattr(error, 'type', '')} {error}".lower()
    return any(mark in said for mark in _OVERFLOWS)


def _words(error: Exception) -> str:
    """What the provider said, else what the SDK and its transport said."""
    body: Any = getattr(error, "body", None)
    said = body.get("message") or body.get("detail") if isinstance(body, Mapping) else None
    text = str(said or _own_words(error))
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]} …"


def _own_words(error: Exception) -> str:
    words = str(error).rstrip(".") or type(error).__name__
    cause = str(error.__cause__ or "")
    return f"{words} ({cause})" if cause and cause not in words else words


def _retries(error: Exception) -> int:
    """How often the SDK had asked again; it counts in a header of the request."""
    headers = getattr(getattr(error, "request", None), "headers", {})
    return int(headers.get("x-stainless-retry-count", 0))


def _mentions(error: BaseException | None, secret: str) -> bool:
    while error is not None:
        if secret and secret in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
