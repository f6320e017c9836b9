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


MAX_UNUSED = 500
"""After so many calls with other messages, the JSON of a message is forgotten: its run is over, or sends it rarely."""


class MessageEncoder:
    """Encodes messages, and keeps the JSON of those that were used last.

    Args:
        encode: the value of a message, which `json` can represent.
    """

    def __init__(self, encode: Callable[[Message], Any]) -> None:
        self._encode = encode
        self._kept: OrderedDict[tuple[Any, ...], tuple[bytes, int]] = OrderedDict()
        self._kept_bytes = self._calls = 0

    def __call__(self, messages: Sequence[Message]) -> Iterator[bytes]:
        """The JSON of each message of a conversation."""
        if len(messages) == 1:  # a sub-call; its message is not sent again
            return iter([to_json(self._encode(messages[0]))])
        self._calls += 1
        return map(self._json, messages)

    def _json(self, message: Message) -> bytes:
        # Strings and bytes keep their hashes, so a key of the same objects is found without reading them.
        key = message["role"], message["content"], message.get("images", ())
        if (known := self._kept.pop(key, None)) is not None:
            self._kept[key] = known[0], self._calls
            return known[0]
        json = to_json(self._encode(message))
        self._kept[key] = json, self._calls
        self._kept_bytes += len(json)
        while self._kept_bytes > MAX_KEPT_BYTES or self._oldest() < self._calls - MAX_UNUSED:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1][0])
        return json

    def _oldest(self) -> int:
        """The last call that used the message which was not used for longest."""
        return next(iter(self._kept.values()), (b"", self._calls))[1]


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
