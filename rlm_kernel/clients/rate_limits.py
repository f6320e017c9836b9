"""What a provider's headers say about its rate limits.

Sources: the header tables of OpenAI ("Rate limits in headers") and Anthropic ("Response headers"), and `Retry-After` of
RFC 9110. Providers that copy OpenAI's API send OpenAI's names.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

MAX_PAUSE_SECONDS = 600.0
"""A longer wait that a header asks for is not believed."""

_TOO_MANY = 429
_OVERLOADED = 529
_DURATION = re.compile(
    r"\A(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9})ms)?\Z"
)
_NAMES = {
    "requests": ("x-ratelimit-{}-requests", "anthropic-ratelimit-requests-{}"),
    "tokens": ("x-ratelimit-{}-tokens", "anthropic-ratelimit-tokens-{}"),
}


@dataclass(frozen=True, slots=True)
class Allowed:
    """One limit as a provider reports it.

    Attributes:
        per_minute: the limit; infinity: not reported.
        remaining: what is left of it; infinity: not reported.
    """

    per_minute: float = math.inf
    remaining: float = math.inf


@dataclass(frozen=True, slots=True)
class RateSeen:
    """What the headers of a response say.

    Attributes:
        requests: calls.
        tokens: of prompts and replies.
        paused_until: when calls are admitted again, in seconds of `time.time()`; 0: now.
    """

    requests: Allowed = Allowed()
    tokens: Allowed = Allowed()
    paused_until: float = 0.0


def read_headers(status: int, headers: Mapping[str, str]) -> RateSeen | None:
    """The rate limits in the headers of a response; None if there are none."""
    requests, tokens = (_allowed(kind, headers) for kind in _NAMES)
    resets = [_reset(kind, headers) for kind, one in (("requests", requests), ("tokens", tokens)) if one.remaining < 1]
    if status in (_TOO_MANY, _OVERLOADED):
        resets.append(_retry_after(headers))
    pause = max(resets, default=0.0)
    if not pause and requests == tokens == Allowed():
        return None
    return RateSeen(requests, tokens, time.time() + min(pause, MAX_PAUSE_SECONDS) if pause else 0.0)


def _allowed(kind: str, headers: Mapping[str, str]) -> Allowed:
    limit, remaining = (_number(_header(kind, what, headers)) for what in ("limit", "remaining"))
    return Allowed(limit or math.inf, remaining)


def _header(kind: str, what: str, headers: Mapping[str, str]) -> str:
    return next((value for name in _NAMES[kind] if (value := headers.get(name.format(what)))), "")


def _number(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 15 else math.inf  # noqa: PLR2004


def _reset(kind: str, headers: Mapping[str, str]) -> float:
    """Seconds until a limit is as it was: OpenAI sends `6m0s`, Anthropic a date."""
    text = _header(kind, "reset", headers)
    if (match := _DURATION.match(text)) is not None:
        return sum(
            float(part or 0) * unit for part, unit in zip(match.groups(), (86_400, 3_600, 60, 1, 0.001), strict=True)
        )
    try:
        return max(0.0, datetime.fromisoformat(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    try:
        seconds = float(text) if text[:1].isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 1.0
    return max(0.0, seconds) if math.isfinite(seconds) else 1.0
