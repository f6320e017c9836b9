"""What the model reads about its conversation, at the end of the opening of each message.

Its length is bounded, so a long conversation costs no more per message than a short one: the newest messages are
quoted, and all of them are in the variable `history`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlm_kernel.agent.context import AgentMessage
from rlm_kernel.text import clip, one_line

MAX_QUOTED = 10
"""Messages."""
MAX_NAMES = 30
QUOTED_SHARE = 3
"""A quoted message may have this part of the room for all of them."""
_INTRODUCTION = (
    "This is a conversation with a user. The notebook stays from message to message, with all variables.\n"
    "`history` is the list of all messages ({'role', 'content', 'timestamp'})."
)
_NAMES = (
    "`search_context(query)` finds lines of `context`, and `add_to_context(key, value)` keeps a value in it for later "
    "messages."
)
_SPEAK = "When you know the answer, write it outside of code as FINAL(your words to the user)."
_LOOK = "First write one ```repl block that finds the answer with Python. After its output, answer: FINAL(your answer)"
_ROLES = {"user": "User", "assistant": "You"}


def note(
    text: str,
    history: Sequence[AgentMessage],
    *,
    count: int,
    context: Mapping[str, Any],
    variables: Mapping[str, str],
    room: int,
    style: str = "full",
) -> str:
    """The note for a message.

    Args:
        text: the message.
        history: the newest messages before it.
        count: of all messages before it.
        context: the agent's context.
        variables: the variables of earlier cells, name to type.
        room: characters for the quoted messages.
        style: of the prompts; other than ``"full"``: for a small model.
    """
    told = (_INTRODUCTION, _NAMES) if style == "full" else ("This is a conversation. All variables stay.",)
    lines = [
        *told,
        *_named("`context` has the keys", context),
        *_named("Your variables from earlier messages:", variables),
        *_quoted(history, count, room),
        f"Answer the user's new message: {clip(one_line(text), room)}",
        _SPEAK if style == "full" else _LOOK,
    ]
    return "\n".join(lines)


def _named(heading: str, names: Mapping[str, Any]) -> Iterator[str]:
    if names:
        shown = ", ".join(f"`{name}`" for name in list(names)[:MAX_NAMES])
        more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
        yield f"{heading} {clip(shown, 100 * MAX_NAMES)}{more}."


def _quoted(history: Sequence[AgentMessage], count: int, room: int) -> Iterator[str]:
    shown: list[str] = []
    for message in reversed(history[-MAX_QUOTED:]):
        line = f"{_ROLES[message['role']]}: {clip(message['content'], room // QUOTED_SHARE)}"
        if room < len(line):
            break
        room -= len(line)
        shown.append(line)
    if count > len(shown):
        yield f"{count - len(shown):,} earlier messages are in `history`."
    if shown:
        yield "The newest messages:"
        yield from reversed(shown)
