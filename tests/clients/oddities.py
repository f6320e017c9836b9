"""The oddities of providers: what one sends, and what happens. `docs/backends.md` shows the rows.

`REPLIES` are replies; `REFUSALS` are servers that refuse a part of a request. Each row has a step for OpenAI's API and
one for Anthropic's; None: it does not occur there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loopback import Fails, Request, Says, Sends, Step

TOOL = {"id": "call_1", "type": "function", "function": {"name": "python", "arguments": "{}"}}
TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "python", "input": {}}
THOUGHT = {"type": "thinking", "thinking": "Let me see.", "signature": "s"}
PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "4"}, "2"]


@dataclass(frozen=True)
class OddReply:
    """A reply.

    Attributes:
        sends: what the provider sends, for the docs.
        openai, anthropic: the step.
        text, reason: the text and the reason of the reply.
        answer: what a sub-call returns, or None.
        error: words of its error, or None.
        partial: the text so far that the error carries.
    """

    sends: str
    openai: Step | Callable[[Request], Step] | None
    anthropic: Step | None
    text: str
    reason: str | dict[str, str | None] | None
    answer: str | None = None
    error: str | None = None
    partial: str = ""

    @property
    def happens(self) -> str:
        """What a sub-call gets, for the docs."""
        if self.error is None:
            return f"`{self.answer}`"
        return f"error: … {self.error} …" + (f", with the text so far `{self.partial}`" if self.partial else "")


def no_choices(request: Request) -> Step:
    if not request.streams:
        return Sends(b'{"object": "chat.completion", "choices": []}')
    return Sends(b'data: {"choices": []}\n\ndata: [DONE]\n\n', content_type="text/event-stream")


CUT, NO_TEXT, WITHHELD = "was cut at the length limit", "holds no text", "filter withheld its reply"

REPLIES = [
    OddReply("thinking in tags", "<think>Hm.</think>42", "<think>Hm.</think>42", "<think>Hm.</think>42", "stop", "42"),
    OddReply(
        "thinking in a field of its own",
        Says("42", fields={"reasoning_content": "Hm.", "reasoning": "Hm."}),
        Says("42", blocks=(THOUGHT,)),
        "42",
        "stop",
        "42",
    ),
    OddReply(
        "a text that the length limit cut",
        Says("It is 4", finish_reason="length"),
        Says("It is 4", finish_reason="length"),
        "It is 4",
        "length",
        error=CUT,
        partial="It is 4",
    ),
    OddReply(
        "no text, because thinking took the whole limit",
        Says(None, finish_reason="length", fields={"reasoning_content": "Hm."}),
        Says(None, finish_reason="length", blocks=(THOUGHT,)),
        "",
        "length",
        error="all of it was thinking",
    ),
    OddReply(
        "a thought in tags that the length limit cut",
        Says("<think>Hm", finish_reason="length"),
        Says("<think>Hm", finish_reason="length"),
        "<think>Hm",
        "length",
        error="all of it was thinking",
    ),
    OddReply(
        "a text that the content filter stopped",
        Says("It is", finish_reason="content_filter"),
        None,
        "It is",
        "content_filter",
        error=WITHHELD,
        partial="It is",
    ),
    OddReply(
        "Gemini's `SAFETY`, without text",
        Says(None, finish_reason="SAFETY"),
        None,
        "",
        "content_filter",
        error=WITHHELD,
    ),
    OddReply(
        "a refusal",
        Says(None, fields={"refusal": "No."}),
        Says("No.", finish_reason="refusal"),
        "No.",
        "refusal",
        error="it refused to answer",
        partial="No.",
    ),
    OddReply(
        "a reply that ends with an error",
        Says("It", finish_reason="error"),
        None,
        "It",
        "error",
        error="ended its reply with an error",
        partial="It",
    ),
    OddReply(
        "no text, only thinking",
        Says(None, fields={"reasoning_content": "Hm."}),
        Says(None, blocks=(THOUGHT,)),
        "",
        "stop",
        error=NO_TEXT,
    ),
    OddReply(
        "a call of a tool that was not offered",
        Says(None, fields={"tool_calls": [TOOL]}, finish_reason="tool_calls"),
        Says(None, blocks=(TOOL_USE,), finish_reason="tool_use"),
        "",
        "tool_calls",
        error="asked for a tool that was not offered",
    ),
    OddReply(
        "a turn that the provider paused (`pause_turn`)",
        Says("It", finish_reason="pause_turn"),
        Says("It", finish_reason="pause_turn"),
        "It",
        "error",
        error="ended its reply with an error",
        partial="It",
    ),
    *(
        OddReply(
            f"the reason `{reason}`",
            Says("It", finish_reason=reason),
            None,
            "It",
            known,
            error=error,
            partial="It",
        )
        for reason, known, error in (
            ("length ", "length", CUT),
            ("Max Tokens", "length", CUT),
            ("contentFilter", "content_filter", WITHHELD),
            ("cancelled", "error", "ended its reply with an error"),
            ("ERROR_TOXIC", "content_filter", WITHHELD),
            ("error_of_a_new_kind", "error", "ended its reply with an error"),
        )
    ),
    OddReply(
        "a refusal as a part",
        Says(None, fields={"content": [{"type": "refusal", "refusal": "No."}]}),
        None,
        "No.",
        "refusal",
        error="it refused to answer",
        partial="No.",
    ),
    OddReply(
        "a part with a value", Says(None, fields={"content": [{"text": {"value": "42"}}]}), None, "42", "stop", "42"
    ),
    OddReply("one part without a list", Says(None, fields={"content": {"text": "42"}}), None, "42", "stop", "42"),
    OddReply("a number as the content", Says(None, fields={"content": 42}), None, "42", "stop", "42"),
    OddReply(
        "the reason `FINISH_REASON_UNSPECIFIED`",
        Says("42", finish_reason="FINISH_REASON_UNSPECIFIED"),
        None,
        "42",
        "stop",
        "42",
    ),
    OddReply("empty `choices`", no_choices, None, "", "stop", error=NO_TEXT),
    OddReply("blanks", " \n ", " \n ", " \n ", "stop", error=NO_TEXT),
    OddReply("a list of parts", Says(None, fields={"content": PARTS}), None, "42", "stop", "42"),
    *(
        OddReply(
            f"the reason `{reason}`",
            Says("42", finish_reason=reason),
            Says("42", finish_reason=reason),
            "42",
            "stop",
            "42",
        )
        for reason in ("eos", "STOP", "end_turn", "stop_sequence")
    ),
    OddReply(
        "no reason at the end (a stream ends with `[DONE]`, or `message_stop`)",
        Says("42", finish_reason=None),
        Says("42", finish_reason=None),
        "42",
        "stop",
        "42",
    ),
    OddReply(
        "no reason at the end, and as many tokens as the limit",
        Says("It is 4", finish_reason=None, usage=(3, 50)),
        Says("It is 4", finish_reason=None, usage=(3, 50)),
        "It is 4",
        "length",
        error=CUT,
        partial="It is 4",
    ),
    OddReply("no usage", Says("42", usage=None), Says("42", usage=None), "42", "stop", "42"),
]


@dataclass(frozen=True)
class Refusal:
    """A server that refuses a part of a request.

    Attributes:
        refuses: what it refuses, for the docs.
        instead: what is sent from then on, for the docs.
        message: what it says.
        has: whether a request has that part.
        apis: where it occurs.
        streamed: whether only streamed requests have it.
        sampling: sampling arguments of the client.
        messages: the conversation.
        schema: whether the call has a schema.
    """

    refuses: str
    instead: str
    message: str
    has: Callable[[Request], Any]
    apis: tuple[str, ...] = ("openai",)
    streamed: bool = False
    sampling: tuple[tuple[str, Any], ...] = ()
    messages: tuple[dict[str, str], ...] = ({"role": "user", "content": "Which?"},)
    schema: bool = False
    status: int = 400

    def script(self, request: Request) -> Step:
        """The server."""
        return Fails(self.status, self.message) if self.has(request) else '{"n": 42}'


def roles(request: Request) -> list[str]:
    return [message["role"] for message in request.messages]


def alternates(request: Request) -> bool:
    asked = [role for role in roles(request) if role != "system"]
    return asked == [("user", "assistant")[i % 2] for i in range(len(asked))]


SYSTEM = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?"})
LONE = ({"role": "assistant", "content": "I have read it."},)
NEIGHBOURS = (*SYSTEM, {"role": "user", "content": "Well?"}, {"role": "assistant", "content": "Hm."}, SYSTEM[1])

REFUSALS = [
    Refusal(
        "`stream_options`",
        "the usage is estimated",
        "Unrecognized request argument supplied: stream_options",
        lambda request: "stream_options" in request.body,
        streamed=True,
    ),
    Refusal(
        "`stream_options`, as pydantic says it",
        "the usage is estimated",
        '[{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]',
        lambda request: "stream_options" in request.body,
        streamed=True,
        status=422,
    ),
    Refusal(
        "streaming",
        "replies come whole",
        "Your organization must be verified to stream this model. Please go to: https://platform.openai.com/settings",
        lambda request: request.streams,
        ("openai", "anthropic"),
        streamed=True,
    ),
    Refusal(
        "`response_format`",
        "the schema is a part of the prompt",
        "This response_format type is not supported",
        lambda request: "response_format" in request.body,
        schema=True,
    ),
    Refusal(
        "`output_config`",
        "the schema is a part of the prompt",
        "output_config: Extra inputs are not permitted",
        lambda request: "output_config" in request.body,
        ("anthropic",),
        schema=True,
    ),
    Refusal(
        "a system message",
        "its text begins the first user message",
        "System role not supported",
        lambda request: "system" in roles(request),
        messages=SYSTEM,
    ),
    Refusal(
        "a conversation that ends with an assistant message",
        "a user message `Continue.` follows",
        "This model does not support assistant message prefill. The conversation must end with a user message.",
        lambda request: roles(request)[-1] != "user",
        ("openai", "anthropic"),
        messages=LONE,
    ),
    Refusal(
        "neighbours of one role",
        "they are one message",
        "After the optional system message, conversation roles must alternate user/assistant/user/assistant/...",
        lambda request: not alternates(request),
        messages=NEIGHBOURS,
    ),
    Refusal(
        "a sampling argument, such as `temperature`",
        "it is left out, and a warning is logged",
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
        lambda request: "temperature" in request.body,
        ("openai", "anthropic"),
        sampling=(("temperature", 0),),
    ),
    Refusal(
        "`cache_control`",
        "nothing is marked for the cache",
        "messages.0.content.0.cache_control: Extra inputs are not permitted",
        lambda request: "cache_control" in json.dumps(request.body),
        ("anthropic",),
        messages=SYSTEM,
    ),
]


def table() -> str:
    """The rows as the docs show them."""
    replies = [f"| {row.sends} | {row.happens} |" for row in REPLIES]
    refusals = [f"| {row.refuses} | {row.instead} |" for row in REFUSALS]
    return "\n".join(
        [
            "| a provider sends | a sub-call gets |",
            "|---|---|",
            *replies,
            "",
            "| a provider refuses | from then on |",
            "|---|---|",
            *refusals,
        ]
    )
