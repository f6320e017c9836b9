"""Tell an answer from a reply that is none: one that was cut, withheld or refused, or that has no text."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from rlm_kernel.errors import SHOWN_CHARACTERS, NonAnswerError
from rlm_kernel.parsing import without_thinking
from rlm_kernel.text import clip_end

if TYPE_CHECKING:
    from rlm_kernel.types import Reply

WITHHELD = frozenset({"content_filter", "refusal"})
"""Reasons for which the same question has no answer a second time, either."""

_WHAT: Mapping[str, str] = MappingProxyType(
    {
        # The guest knows a cut answer by these words (`CUT` in `kernel.guest.questions`).
        "length": "its reply was cut at the length limit. Ask for a shorter answer, or raise max_tokens in "
        "backend_kwargs or sub_sampling_args. In a cell, allow_partial=True returns the part.",
        "thinking": "its reply was cut at the length limit before it had any text: all of it was thinking. Ask for "
        "less at a time, raise max_tokens in backend_kwargs or sub_sampling_args, or lower reasoning_effort in "
        "sampling_args.",
        "content_filter": "the provider's filter withheld its reply. Ask in other words, or ask another model.",
        "refusal": "it refused to answer{words}. Ask in other words, or ask another model.",
        "error": "the provider ended its reply with an error. Ask again, or ask another model.",
        "tool_calls": "it asked for a tool that was not offered, and wrote no text. Say in the prompt that the answer "
        "is plain text.",
        "empty": "its reply holds no text{thought}. Rephrase the prompt, or ask another model.",
    }
)


def answer_of(reply: Reply, backend: str) -> str:
    """The text of a reply as an answer, without thinking.

    Raises:
        NonAnswerError: it is none; the text so far is its `partial_answer`.
    """
    text = text_of(reply)
    if (reason := why_none(reply, text)) is not None:
        raise non_answer(reply, backend, reason, text)
    return text


def text_of(reply: Reply) -> str:
    """The text of a reply without thinking; unchanged if it has none."""
    text = without_thinking(reply.text)
    return text if text == reply.text else text.strip()


def why_none(reply: Reply, text: str) -> str | None:
    """Why a reply is no answer, see `NonAnswerError.reason`; None if it is one.

    Args:
        reply: the reply.
        text: its text without thinking.
    """
    reason = reply.finish_reason
    if reason in {"length", "error"} or reason in WITHHELD:
        return reason
    if text.strip():
        return None
    return "tool_calls" if reason == "tool_calls" else "empty"


def non_answer(reply: Reply, backend: str, reason: str, text: str) -> NonAnswerError:
    """The error for a reply that is no answer."""
    has_text = bool(text.strip())
    what = _WHAT["thinking" if reason == "length" and not has_text else reason]
    words = f": {clip_end(text.strip(), SHOWN_CHARACTERS)!r}" if has_text else ""
    thought = ", only thinking" if reply.text.strip() else ""
    what = what.format(words=words, thought=thought)
    return NonAnswerError(
        f"{backend}, model {reply.model!r}: {what}",
        backend=backend,
        model=reply.model,
        reason=reason,
        partial_answer=text if has_text else None,
    )
