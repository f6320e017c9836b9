"""Errors that pass by themselves, and that a provider sends in a response of status 200.

The SDKs retry the statuses of such errors, but do not look into the body or the events of a response of status 200.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rlm_kernel.clients.requests_sent import requests_sent
from rlm_kernel.errors import refused

_BUSY = 429
_STATUSES = frozenset({408, 409, _BUSY, *range(500, 600)})
_ERRORS = range(400, 600)
_NUMBERS = ("code", "status", "status_code", "error_code")
_TEXTS = (*_NUMBERS, "message", "detail", "type", "error_type")
_RATE = re.compile(r"rate[ _-]?limit|too[ _]many[ _]requests", re.IGNORECASE)
_PASSES = re.compile(
    rf"overload|{_RATE.pattern}|time[ _-]?out|timed[ _]out|try again|temporarily|unavailable|server[ _]error",
    re.IGNORECASE,
)
_OK = 200
_MAX_WAIT = 8.0
_MAX_READ = 10_000


class TransientError(Exception):
    """A response of status 200 is an error after which the same request may succeed.

    Args:
        words: the provider's message.
        status: that the error gives, or None.
    """

    def __init__(self, words: str, status: int | None) -> None:
        super().__init__(words)
        self.words = words
        self.status = status

    @property
    def kind(self) -> str:
        """The key of its next step in `provider_errors`."""
        is_busy = self.status == _BUSY or (self.status is None and _RATE.search(self.words))
        return "RateLimitError" if is_busy else "InternalServerError"


def error_in(body: Any) -> TransientError | None:
    """The transient error that a decoded body, or an event of a stream, is; None: it is another or none."""
    if isinstance(body, str):
        body = {"message": body}
    if not isinstance(body, Mapping):
        return None
    inner = body.get("error")
    fields = {**body, **(inner if isinstance(inner, Mapping) else {"message": body.get("message") or inner})}
    texts = [str(fields[name])[:_MAX_READ] for name in _TEXTS if isinstance(fields.get(name), str | int)]
    words = next((text for name in ("message", "detail") if isinstance(text := fields.get(name), str) and text), "")
    numbers = (str(fields.get(name)) for name in _NUMBERS)
    status = next((int(n) for n in numbers if len(n) == 3 and n.isdecimal() and int(n) in _ERRORS), None)  # noqa: PLR2004
    passes = status in _STATUSES if status is not None else _PASSES.search(" ".join(texts)) is not None
    return TransientError(words[:_MAX_READ] or " ".join(texts), status) if passes else None


@contextmanager
def transient_errors() -> Iterator[None]:
    """Convert the errors that an SDK raises for an event of a stream.

    Raises:
        TransientError: such an event; all other errors are raised unchanged.
    """
    try:
        yield
    except Exception as error:
        found = error_in(getattr(error, "body", None)) if getattr(error, "status_code", _OK) == _OK else None
        if found is None:
            raise
        raise found from None


def forget_request(error: TransientError) -> None:
    """Count the last request as one that the provider refused, where an HTTP error of this status would be."""
    if refused(error.status) and (sent := requests_sent.get()) is not None:
        sent.answered = False


def wait_seconds(retry: int) -> float:
    """How long to wait before a retry, counted from 0; the rule of the SDKs."""
    return min(0.5 * 2.0**retry, _MAX_WAIT) * random.uniform(0.75, 1)  # noqa: S311
