"""Errors of the library in the words of the protocol."""

from __future__ import annotations

from acp import RequestError

from rlm_kernel.errors import ConfigError, RLMError
from rlm_kernel.text import one_line, plain

UNKNOWN_SESSION = "There is no such session: session/list names those of this folder."
NO_KEY = "No API key"
"""How the message about a missing key begins."""
MAX_CHARACTERS = 2_000


def failure(error: RLMError | OSError | ValueError) -> RequestError:
    """The error of a request. The message is for the person at the client.

    A missing key is the protocol's `auth_required`, and a wrong argument its `invalid_params`.
    """
    message = one_line(plain(str(error)), MAX_CHARACTERS)
    code = -32602 if isinstance(error, ConfigError) else -32603
    if message.startswith(NO_KEY):
        code = -32000
    data = {"details": message, "type": type(error).__name__}
    if partial := getattr(error, "partial_answer", None):
        data["partial_answer"] = plain(str(partial))
    return RequestError(code, message, data)


def wrong(message: str) -> RequestError:
    """The error of a request whose parameters are wrong."""
    return RequestError(-32602, one_line(plain(message), MAX_CHARACTERS), {"details": plain(message)[:MAX_CHARACTERS]})
