"""The JSON of requests. A message is encoded once, although every turn of its conversation sends it."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from rlm_kernel.types import Message

MAX_KEPT_BYTES = 16_000_000
"""Limit of the JSON that one client keeps; a window of a million tokens is 4 MB of text."""


class MessageEncoder:
    """Encodes messages, and keeps the JSON of those that were used last.

    Args:
        encode: the value of a message, which `json` can represent.
    """

    def __init__(self, encode: Callable[[Message], Any]) -> None:
        self._encode = encode
        self._kept: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()
        self._kept_bytes = 0

    def __call__(self, messages: Sequence[Message]) -> Iterator[bytes]:
        """The JSON of each message of a conversation."""
        if len(messages) == 1:  # a sub-call; its message is not sent again
            return iter([to_json(self._encode(messages[0]))])
        return map(self._json, messages)

    def _json(self, message: Message) -> bytes:
        # Strings and bytes keep their hashes, so a key of the same objects is found without reading them.
        key = message["role"], message["content"], message.get("images", ())
        if (json := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return json
        self._kept[key] = json = to_json(self._encode(message))
        self._kept_bytes += len(json)
        while self._kept_bytes > MAX_KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1])
        return json


def request_body(request: Mapping[str, Any]) -> bytes:
    """The JSON of a request whose field ``messages``, or ``input``, is the JSON of its messages."""
    fields = dict(request)
    name = "input" if "input" in fields else "messages"
    messages: bytes = fields.pop(name)
    return b'{"%s":[%s],%s' % (name.encode(), messages, to_json(fields)[1:])


def check_fields(argument: str, fields: Mapping[str, Any] | None, reserved: Collection[str] = ()) -> None:
    """Check fields of the user's that go into every request.

    Raises:
        ConfigError: one is reserved, or JSON cannot represent it.
    """
    for name, value in (fields or {}).items():
        if name in reserved:
            raise ConfigError(f"{argument} may not hold {name}: it is set for each call.")
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{argument}[{name!r}] cannot be sent as JSON ({error}): make it a plain number, str, list or dict."
            ) from None


def join_surrogates(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced by U+FFFD: JSON in UTF-8 contains none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
