"""Parts of a request that a server refuses, although the request works without them.

`refused_part` finds in a refusal the part that it names. The client leaves it out, asks once more, and leaves it out of
all later requests. A part is a field of the request, such as ``stream_options``, or a form of the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlm_kernel.types import Message

STATUSES = frozenset({400, 404, 422, 500, 501})
"""Of refusals; some servers fail with 500 on a field that they do not know."""

STREAM = "stream"
SYSTEM, USER_LAST, ALTERNATION = "system role", "user message at the end", "alternation of roles"
CHAT, REASONING = "chat completions", "reasoning items"
LIMIT = "limit of the reply"

FORMS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        name: re.compile(pattern, re.IGNORECASE)
        for name, pattern in {
            CHAT: r"v1/responses\b|\bresponses api\b|\bnot a chat model\b",
            STREAM: r"\bstreaming (?:is |was )?(?:not|un|disabled)|n[o']t (?:support|allow)\w{0,3} stream(?:ing|s)\b"
            r"|\bverified to stream\b",
            REASONING: r"\bencrypted[ _]content\b|without its required following item",
            ALTERNATION: r"\balternat(?:e|es|ing|ion)\b|\bconsecutive\b.{0,40}\b(?:messages|roles?)\b",
            USER_LAST: r"\bprefill|\b(?:last|final) (?:message|role|turn)\b|\bends? with a user\b"
            r"|\bassistant messages? at the end\b|\bat least one user\b|\bno user (?:query|message)\b"
            r"|\bstart with a user\b|\bfirst message must\b",
            SYSTEM: r"\b(?:system|developer)\W{1,3}(?:roles?|messages?|prompts?|instructions?)\b"
            r"|\broles?\b.{0,80}\b(?:system|developer)\b|\bonly user(?:,| and) assistant\b.{0,20}\broles\b",
        }.items()
    }
)
"""What servers write when they refuse a form, in the order in which they are tried."""

SCHEMA_FIELDS = frozenset({"response_format", "output_config", "text"})
"""Fields of the modes for structured output."""

_REFUSES = re.compile(
    r"unsupported|not\b.{0,20}\b(?:support|permit|allow|accept|implement|enable|recogni|available)|unavailable"
    r"|n't (?:support|allow|accept)|unrecogni[sz]ed|unknown|unexpected|extra[ _](?:input|field|forbidden)"
    r"|only the default|only allowed when|\bno \w{1,20} found that support|deprecated"
    r"|must be verified|cannot both|mutually exclusive",
    re.IGNORECASE,
)
OURS = frozenset({"stream_options", "cache_control", "store", "include"})
"""Fields that the client adds: any complaint about them is enough."""

_FIXED = frozenset(
    "model messages input max_tokens max_completion_tokens max_output_tokens system api_key api_base timeout "
    "max_retries".split()
)
_WORDS = frozenset("include metadata n reasoning stop store stream text thinking tools user".split())
"""Fields whose names are plain words: they count only in quotes."""

_LIMIT_NAMED = re.compile(
    r"\bmax_(?:\w+_)?tokens\b|\b(?:completion|output) tokens\b|\bin the completion\b", re.IGNORECASE
)
_TOO_LARGE = re.compile(
    r"\btoo (?:large|high|big|long|many)\b|\bat most\b|\bmaximum\b|\bup to\b|\bexceed|\bgreater than\b|\bless than\b"
    r"|\bvalid range\b|\byou requested\b|[<>]=?",
    re.IGNORECASE,
)
_OF_WINDOW = re.compile(
    r"\bcontext[ _-]?(?:length|window|size|limit)\b|\bin the (?:messages|prompt|input)\b", re.IGNORECASE
)
_NUMBER = re.compile(r"(?<![\w.-])\d{1,3}(?:,\d{3})+(?![\w-])|(?<![\w.-])\d{1,9}(?![\w-])")
MIN_LIMIT = 256
"""Tokens. A smaller number in a refusal is not taken for the limit of a reply."""


def allowed_limit(status: int | None, words: str, limit: int | None) -> int | None:
    """The limit of a reply that a server allows instead; 0: it names none; None: the limit was not refused.

    Args:
        status: of the refusal.
        words: the server's message, without the name of the model.
        limit: tokens, as sent; None: none was sent.
    """
    if limit is None or status not in {400, 422} or not (_LIMIT_NAMED.search(words) and _TOO_LARGE.search(words)):
        return None
    if _OF_WINDOW.search(words):  # what is left of the window differs for each prompt
        return 0
    numbers = (int(number.replace(",", "")) for number in _NUMBER.findall(words))
    return max((number for number in numbers if MIN_LIMIT <= number < limit), default=0)


def refused_part(
    status: int | None, words: str, fields: Iterable[str], forms: Collection[str], left_out: Collection[str]
) -> str | None:
    """The part of a request that a server refuses; None: none that can be left out.

    Args:
        status: of the refusal.
        words: the server's message, without the name of the model.
        fields: of the request.
        forms: keys of `FORMS` that the request has.
        left_out: parts that the request lacked already.
    """
    if status not in STATUSES:
        return None
    form = next((name for name, pattern in FORMS.items() if name in forms and pattern.search(words)), None)
    if form is not None and form not in left_out:
        return form
    possible = set(fields) if _REFUSES.search(words) else OURS & set(fields)
    named = [(at, name) for name in possible - _FIXED - set(left_out) if (at := _find(name, words)) >= 0]
    name = min(named, default=(0, None))[1]
    # A schema that is too complex is no reason to send no schemas.
    is_schema = name in SCHEMA_FIELDS and "schema" in words.lower().replace("json_schema", "")
    return None if is_schema else name


def _find(name: str, words: str) -> int:
    """Where a field is named, as a whole word, and in quotes if it is a word of English; -1: nowhere."""
    at = words.find(name)
    while at >= 0:
        around = f" {words} "[at], f"{words} "[at + len(name)]
        if all(mark in "'\"`" if name in _WORDS else not (mark.isalnum() or mark == "_") for mark in around):
            return at
        at = words.find(name, at + 1)
    return -1


def without_forms(messages: Sequence[Message], left_out: Collection[str]) -> Sequence[Message]:
    """The conversation without the forms in `left_out`."""
    if SYSTEM in left_out:
        messages = _without_system(messages)
    if USER_LAST in left_out and messages and messages[-1]["role"] != "user":
        messages = [*messages, {"role": "user", "content": "Continue."}]
    if ALTERNATION in left_out:
        messages = _alternating(messages)
    return messages


def forms_of(messages: Sequence[Message], forms: Collection[str], left_out: Collection[str]) -> set[str]:
    """Which of these forms a request with this conversation has."""
    found = {name for name in (SYSTEM, USER_LAST, ALTERNATION) if without_forms(messages, {name}) != messages}
    return (found | {REASONING if CHAT in left_out else CHAT}) & set(forms)


def _without_system(messages: Sequence[Message]) -> Sequence[Message]:
    """The conversation with its system messages at the beginning of the first user message."""
    told = [message["content"] for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    if not told:
        return messages
    if not others or others[0]["role"] != "user":
        return [{"role": "user", "content": "\n\n".join(told)}, *others]
    first, *rest = others
    return [{**first, "content": "\n\n".join([*told, first["content"]])}, *rest]


def _alternating(messages: Sequence[Message]) -> Sequence[Message]:
    """The conversation with neighbours of one role as one message, and a user's message first."""
    merged = [_merged(list(group)) for _, group in groupby(messages, key=lambda message: message["role"])]
    first = next((i for i, message in enumerate(merged) if message["role"] != "system"), None)
    if first is not None and merged[first]["role"] == "assistant":
        merged.insert(first, {"role": "user", "content": "Begin."})
    return merged if len(merged) != len(messages) else messages


def _merged(messages: Sequence[Message]) -> Message:
    if len(messages) == 1:
        return messages[0]
    images = tuple(image for message in messages for image in message.get("images", ()))
    merged: Message = {"role": messages[0]["role"], "content": "\n\n".join(m["content"] for m in messages)}
    return {**merged, "images": images} if images else merged
