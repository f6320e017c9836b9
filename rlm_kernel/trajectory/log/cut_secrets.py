"""Hide the part of a secret that is left where a text was cut.

Texts for a model are cut to their limits before they are redacted. The part that is left begins or ends at the cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from os.path import commonprefix
from typing import Any

from rlm_kernel.trajectory.events import CellFinished, ChildEvent, Event, IterationStarted

MARKS = re.compile(r"\s?…")
"""`text.clip` and `text.clip_end` leave these in place of what they cut."""
_MARKS_AND_END = re.compile(r"\s?…|\Z")
_MARKS_AND_LINES = re.compile(r'\s?…|["\n]|\Z')
"""The preview of a context has no marks, but quotes, or lines."""

_MIN_CHARACTERS = 8
_USUAL_CHARACTERS = 12
"""A shorter part may be what all keys of a provider begin with, such as ``sk-proj-``."""


def without_parts(text: str, secret: str, borders: re.Pattern[str], hidden: str) -> str:
    """The text without parts of a secret at a border. A part has 12 characters or more, or half of a short secret.

    Args:
        text: without the whole secret.
        secret: the secret.
        borders: match what stands in place of the rest.
        hidden: stands in place of the part.
    """
    least = max(_MIN_CHARACTERS, min(_USUAL_CHARACTERS, len(secret) // 2))
    if secret[:least] in text:
        text = _without_beginning(text, secret, borders, hidden, least)
    if secret[-least:] in text:
        text = _without_beginning(text[::-1], secret[::-1], borders, hidden[::-1], least)[::-1]
    return text


def without_parts_in(event: Event, hide: Callable[[str, re.Pattern[str]], str]) -> Event:
    """The event without parts of secrets in texts that are cut without a mark.

    These are the preview of the context in the opening, and the pieces of a long output.

    Args:
        event: without whole secrets, and without parts at a mark.
        hide: hides the parts in a text that are at these borders.
    """
    if isinstance(event, ChildEvent):
        inner = without_parts_in(event.event, hide)
        return event if inner is event.event else replace(event, event=inner)
    if isinstance(event, IterationStarted) and (event.iteration == 1 or _has_opening(event)):
        messages = [{**message, "content": hide(message["content"], _MARKS_AND_LINES)} for message in event.messages]
        return replace(event, messages=tuple(messages))
    if isinstance(event, CellFinished):
        outputs = tuple(_without_parts_in_output(output, hide) for output in event.result.outputs)
        return replace(event, result=replace(event.result, outputs=outputs))
    return event


def _has_opening(event: IterationStarted) -> bool:
    """Whether the model begins again, with other prompts."""
    return any(message["role"] == "system" for message in event.messages)


def _without_parts_in_output(output: dict[str, Any], hide: Callable[[str, re.Pattern[str]], str]) -> dict[str, Any]:
    return {**output, "text": hide(output["text"], _MARKS_AND_END)} if output["output_type"] == "stream" else output


def _without_beginning(text: str, secret: str, borders: re.Pattern[str], hidden: str, least: int) -> str:
    pieces, copied, at = [], 0, text.find(secret[:least])
    while at >= 0:
        end = at + len(commonprefix((secret, text[at : at + len(secret)])))  # noqa: RUF071 (of characters, not paths)
        if borders.match(text, end):
            pieces += [text[copied:at], hidden]
            copied = end
        at = text.find(secret[:least], max(at + 1, copied))
    return "".join([*pieces, text[copied:]])
