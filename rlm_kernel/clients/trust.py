"""Who wrote a value, and which server may get which key: one rule for all backends.

Every value that selects a server, or that is a secret, is a `Sourced`. A secret is never sent to a server that a less
trusted source names. An argument and the environment of the process are both the user's. A `.env` file is written by
the author of its folder, and a log or a notebook may come from a stranger.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Generic, NoReturn, TypeVar

from rlm_kernel.clients.transport import is_loopback, without_password
from rlm_kernel.errors import ConfigError

T_co = TypeVar("T_co", covariant=True)

SECRETS = frozenset({"api_key", "virtual_key", "Authorization"})
"""Arguments whose values are shown in no message."""

MAY_HOLD_SECRETS = frozenset({
    "config", "default_headers", "default_query", "extra_body", "http_client", "sampling_args",
})  # fmt: skip
"""Arguments of which any text may be a key, such as a header of a gateway."""

PLAIN = frozenset({
    "api_version", "azure_deployment", "context_window", "max_retries", "max_tokens", "model_name", "model_path",
    "n_ctx", "n_parallel", "prices", "sampling_args", "timeout",
})  # fmt: skip
"""Arguments that neither select a server nor contain a secret. All other arguments, also new ones, are checked."""

SAMPLING = frozenset({
    "frequency_penalty", "logit_bias", "logprobs", "min_p", "parallel_tool_calls", "presence_penalty", "reasoning",
    "reasoning_effort", "reasoning_summary", "repetition_penalty", "response_format", "seed", "service_tier", "stop",
    "temperature", "thinking", "top_k", "top_logprobs", "top_p", "verbosity",
})  # fmt: skip
"""Sampling arguments that select no server, even if the SDK takes them as its own arguments, as litellm does."""

_ADDRESS_NAMES = frozenset({
    "api_base", "api_url", "azure_endpoint", "base_url", "custom_host", "endpoint", "endpoint_url", "host", "hostname",
    "proxies", "proxy", "server_url", "url",
})  # fmt: skip
_PLAIN_MODEL = re.compile(r"\A(?!.*(://|arn:|\.\.))[\w.@:/+-]+", re.ASCII)


class Source(IntEnum):
    """Who wrote a value, the least trusted first."""

    KERNEL = 0
    """A cell, and everything that a kernel sends."""
    RECORD = 1
    """A log, or a notebook: its metadata and its parameters."""
    DOTENV = 2
    """A `.env` file: the author of the folder."""
    ENVIRONMENT = 3
    """The environment of the process: the user."""
    ARGUMENT = 4
    """Python, a command line or a magic: the user."""
    DEFAULT = 5
    """The table of backends. Its keys are placeholders for servers without keys."""

    @property
    def is_users(self) -> bool:
        """Whether the user or this package wrote it."""
        return self >= Source.ENVIRONMENT

    def may_direct(self, secret: Source) -> bool:
        """Whether this source may name the server that gets a secret from the other source."""
        return self.is_users or self >= secret


@dataclass(frozen=True, slots=True)
class Sourced(Generic[T_co]):
    """A value and who wrote it.

    Attributes:
        value: the value; not part of the repr, because it may be a secret.
        source: who wrote it.
        name: the argument or the variable.
        place: where it was found, for messages: ``"backend_kwargs"``, ``"project/.env"``, ``"run.jsonl"``.
        has_users: whether a part of the value is the user's, although its source is another one.
    """

    value: T_co = field(repr=False)
    source: Source
    name: str
    place: str
    has_users: bool = False

    @property
    def origin(self) -> str:
        """Its name and its place."""
        return f"{self.name} in {self.place}"


def as_argument(name: str, value: Any) -> Sourced[Any]:
    """The value with its source; a plain value is the user's."""
    return value if isinstance(value, Sourced) else Sourced(value, Source.ARGUMENT, name, "backend_kwargs")


def each_from(source: Source, place: str, values: Mapping[str, Any]) -> dict[str, Sourced[Any]]:
    """Every value of a mapping with the same source."""
    return {name: Sourced(value, source, name, place) for name, value in values.items()}


def merge(name: str, lower: Any, upper: Any) -> Sourced[dict[str, Any]]:
    """The merged mappings; `upper` takes precedence. The source is the less trusted of the two."""
    one, other = as_argument(name, lower), as_argument(name, upper)
    least = min((part for part in (other, one) if part.value), key=lambda part: part.source, default=other)
    has_users = any(part.value and (part.source.is_users or part.has_users) for part in (one, other))
    return Sourced({**(one.value or {}), **(other.value or {})}, least.source, name, least.place, has_users)


def value_of(given: Any) -> Any:
    """The value itself."""
    return given.value if isinstance(given, Sourced) else given


def addresses_elsewhere(value: Any) -> set[str]:
    """The addresses in plain data, by value or by name, that are not on this machine."""
    return {address for address in _addresses(value) if not _is_here(address)}


def check(settings: Mapping[str, Sourced[Any]], *, finds_keys: bool = False) -> None:
    """Refuse to send a secret, or the input, to a server that an untrusted source names. Called before any request.

    Args:
        settings: the arguments of a backend, by name.
        finds_keys: whether the SDK accepts any option and reads keys from the environment, as litellm does.

    Raises:
        ConfigError: the message names the server, the secret, both sources, and how to allow it.
    """
    secrets = [known for name, known in settings.items() if name in SECRETS and known.source is not Source.DEFAULT]
    for secret in secrets:
        if secret.source < Source.DOTENV:
            raise ConfigError(f"{secret.origin} is not used: a key of a record is not yours. Give {secret.name} again.")
    secrets += [
        Sourced("", Source.ARGUMENT, name, "backend_kwargs")
        for name, setting in settings.items()
        if (setting.source.is_users or setting.has_users) and _may_hold_secret(name, setting.value)
    ]
    if finds_keys:
        secrets.append(Sourced("", Source.ENVIRONMENT, "a key that litellm finds", "the environment"))
    for name, setting in settings.items():
        if name not in SECRETS and _directs(name, setting, finds_keys=finds_keys):
            _check_server(setting, secrets)


def _directs(name: str, setting: Sourced[Any], *, finds_keys: bool) -> bool:
    """Whether the value can select a server, and is not the user's."""
    if setting.source.is_users:
        return False
    if name not in PLAIN or any(_addresses(setting.value)):
        return True
    if not finds_keys:
        return False
    if name == "sampling_args":
        return not setting.value.keys() <= SAMPLING
    return name == "model_name" and _PLAIN_MODEL.fullmatch(setting.value) is None


def _may_hold_secret(name: str, value: Any) -> bool:
    """Whether an argument that is no key may contain one."""
    if name not in MAY_HOLD_SECRETS:
        return False
    if name == "sampling_args":
        return _has_text({field: held for field, held in value.items() if field not in SAMPLING})
    return _has_text(value)


def _has_text(value: Any) -> bool:
    """Whether a value contains more than numbers. Objects, such as an HTTP client, count as text."""
    if isinstance(value, Mapping):
        return any(map(_has_text, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_text, value))
    return value not in ("", None) and not isinstance(value, int | float)


def _check_server(setting: Sourced[Any], secrets: list[Sourced[Any]]) -> None:
    stronger = next((secret for secret in secrets if not setting.source.may_direct(secret.source)), None)
    if stronger is not None:
        _refuse(setting, stronger)
    found = set(_addresses(setting.value, setting.name))
    if not secrets and not (found and all(map(_is_here, found))):
        _refuse(setting, None)


def _refuse(setting: Sourced[Any], secret: Sourced[Any] | None) -> NoReturn:
    target = "the input" if secret is None else secret.origin
    url = setting.value if isinstance(setting.value, str) and "://" in setting.value else None
    what = (
        f"names the server {without_password(url)}, which would get {target}" if url else f"decides who gets {target}"
    )
    raise ConfigError(f"{setting.origin} {what}. If you trust it, {_fix(setting, secret)}.")


def _fix(setting: Sourced[Any], secret: Sourced[Any] | None) -> str:
    if setting.source is not Source.DOTENV:
        return f"give {setting.name} yourself: in backend_kwargs, on the command line, or with papermill -p"
    alone = secret is not None and secret.source is Source.ENVIRONMENT
    ways = f"give base_url in backend_kwargs (--base-url), or set {setting.name} in the environment"
    return f"{ways}; or keep the key in that file only" if alone else ways


def _addresses(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, str):
        if value and (name in _ADDRESS_NAMES or "://" in value):
            yield value
    elif isinstance(value, Mapping):
        for key, held in value.items():
            yield from _addresses(str(key))
            yield from _addresses(held, str(key))
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _addresses(held, name)


def _is_here(address: str) -> bool:
    try:
        return is_loopback(address)
    except ValueError:  # it is not a URL
        return False
