"""The types that a backend's arguments may have, with messages that say what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

SECRETS = frozenset({"api_key", "virtual_key", "Authorization"})
"""Arguments that are shown in no message."""


def check_argument(argument: str, value: object) -> None:
    """Refuse a value of the wrong kind. An argument that is not in `ARGUMENT_KINDS` is the SDK's business.

    Raises:
        ConfigError: the message names the argument and what it must be.
    """
    fits, kind = ARGUMENT_KINDS.get(argument, (_is_anything, ""))
    if not fits(value):
        shown = "something else" if argument in SECRETS else repr(value)
        raise ConfigError(f"{argument} in backend_kwargs must be {kind}, not {shown}.")


def _is_anything(_: object) -> bool:
    return True


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_url(value: object) -> bool:
    if not (isinstance(value, str) and value.isprintable() and value.startswith(("http://", "https://"))):
        return False
    try:
        parts = urlsplit(value)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        return False


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_retries(value: object) -> bool:
    return _is_count(value) or (value == 0 and type(value) is int)


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


_URL = (_is_url, "a URL such as http://localhost:8000/v1: http:// or https://, a host, and a port up to 65535")
_TEXT = (_is_text, "a text")
_TOKENS = (_is_count, "a whole number of tokens, at least 1")

ARGUMENT_KINDS: Mapping[str, tuple[Callable[[object], bool], str]] = MappingProxyType(
    {
        "model_name": (_is_text, "the name of a model"),
        "api_key": _TEXT,
        "base_url": _URL,
        "model_path": (lambda value: isinstance(value, str | Path), "the path of a file"),
        "context_window": _TOKENS,
        "max_tokens": _TOKENS,
        "n_ctx": _TOKENS,
        "n_parallel": (_is_count, "a whole number, at least 1"),
        "max_retries": (_is_retries, "a whole number, at least 0"),
        "timeout": (_is_seconds, "a number of seconds above 0"),
        "sampling_args": (_is_mapping, "a dict such as {'temperature': 0}"),
        "prices": (_is_mapping, "a dict such as {'input': 1.25, 'output': 10} (US dollars per million tokens)"),
        "provider": _TEXT,
        "virtual_key": _TEXT,
        "custom_host": _URL,
        "config": (lambda value: _is_text(value) or _is_mapping(value), "the id of a config, or a dict"),
        "Authorization": _TEXT,
    }
)
