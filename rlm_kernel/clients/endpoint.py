"""Where a provider is, and what a message may say about it: URLs without passwords, and never a key."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from rlm_kernel.clients.reply_size import hooks
from rlm_kernel.errors import ConfigError

MIN_SECRET_LENGTH = 8
"""Characters. What is shorter is a word for a server that wants no key, such as EMPTY or ollama, and may be shown."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Whom a call asks: all that its error messages need to know.

    Attributes:
        backend: the name of the backend.
        model: the name of the model.
        url: where it is, fit to be shown.
        key_variable: the environment variable of the key, or None.
        timeout: seconds.
        secrets: the keys, so that they can be kept out of messages.
        api: whose wire format it speaks.
        url_form: what a `base_url` looks like.
    """

    backend: str
    model: str
    url: str
    key_variable: str | None
    timeout: float
    secrets: tuple[str, ...] = field(default=(), repr=False)
    api: str = "OpenAI"
    url_form: str = "it usually ends in /v1"

    @property
    def key_source(self) -> str:
        """Where a user says the key."""
        argument = "api_key in backend_kwargs"
        if self.key_variable is None:
            return argument
        return f"{argument}, or the variable {self.key_variable} (in the environment or a .env file)"

    def hidden(self, text: str) -> str:
        """The text without the keys."""
        for secret in self._worth_hiding():
            text = text.replace(secret, "[api key]")
        return text

    def is_in(self, text: str) -> bool:
        """Whether a key stands in the text."""
        return any(secret in text for secret in self._worth_hiding())

    def _worth_hiding(self) -> list[str]:
        # The longest first: one may be a part of another.
        return sorted((s for s in self.secrets if len(s) >= MIN_SECRET_LENGTH), key=len, reverse=True)


def check_key(key: str, variable: str | None) -> None:
    """Refuse a key that cannot be sent.

    Raises:
        ConfigError: it is empty or holds what no header may hold. The key is not shown.
    """
    if not (key and key.isascii() and key.isprintable() and " " not in key):
        where = f"api_key (or {variable})" if variable else "api_key"
        raise ConfigError(
            f"{where} is empty or holds a space, a line break or a letter outside ASCII, so "
            "it cannot be sent: copy it again. A server that wants no key takes any word, such as 'EMPTY'."
        )


def is_loopback(url: str) -> bool:
    """Whether the server is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback or ip_address(host).is_unspecified
    except ValueError:
        return host == "localhost"


def http_options(url: str) -> dict[str, Any]:
    """The options of an HTTP client that asks this server, and no other with the key, and reads bounded replies.

    No redirect is followed: it would carry the conversation to another server, and with some SDKs the key. A proxy
    named in the environment cannot reach a server on this machine's loopback.
    """
    return {"follow_redirects": False, "trust_env": not is_loopback(url), "event_hooks": hooks()}


def without_password(url: str) -> str:
    """The URL without user, password and query, fit to be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
