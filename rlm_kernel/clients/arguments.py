"""The types of a backend's arguments, and messages about wrong ones.

Checked by pydantic-core: importing pydantic itself would take longer than everything else in making an `RLM`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic_core import SchemaValidator, ValidationError
from pydantic_core import core_schema as cs

from rlm_kernel.clients.trust import SECRETS
from rlm_kernel.errors import ConfigError
from rlm_kernel.text import suggestion

if TYPE_CHECKING:
    from rlm_kernel.clients.backends import Backend


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if not (url.isprintable() and url.startswith(("http://", "https://")) and parts.hostname and parts.port != 0):
        raise ValueError("not a URL")
    return url


_NOT_BLANK = cs.str_schema(pattern=r"\S")
_DICT = cs.is_instance_schema(Mapping)
_TEXT = (_NOT_BLANK, "a text")
_URL = (
    cs.no_info_after_validator_function(_check_url, cs.str_schema()),
    "a URL such as http://localhost:8000/v1: http:// or https://, a host, and a port up to 65535",
)
_TOKENS = (cs.int_schema(gt=0), "a whole number of tokens, at least 1")

TYPES: Mapping[str, tuple[cs.CoreSchema, str]] = {
    "model_name": (_NOT_BLANK, "the name of a model"),
    "api_key": _TEXT,
    "base_url": _URL,
    "model_path": (cs.union_schema([cs.str_schema(), cs.is_instance_schema(Path)]), "the path of a file"),
    "context_window": _TOKENS,
    "max_tokens": _TOKENS,
    "n_ctx": _TOKENS,
    "n_parallel": (cs.int_schema(gt=0), "a whole number, at least 1"),
    "max_retries": (cs.int_schema(ge=0), "a whole number, at least 0"),
    "timeout": (cs.float_schema(gt=0), "a number of seconds above 0"),
    "sampling_args": (_DICT, "a dict such as {'temperature': 0}"),
    "prices": (_DICT, "a dict such as {'input': 1.25, 'output': 10} (US dollars per million tokens)"),
    "default_headers": (_DICT, "a dict of names to values, such as {'X-Title': 'my program'}"),
    "http_client": (cs.any_schema(), "see `_check_http_client`"),
    "default_query": (_DICT, "a dict of names to values"),
    "organization": _TEXT,
    "project": _TEXT,
    "api_version": _TEXT,
    "azure_deployment": _TEXT,
    "provider": _TEXT,
    "virtual_key": _TEXT,
    "custom_host": _URL,
    "config": (cs.union_schema([_NOT_BLANK, _DICT]), "the id of a config, or a dict"),
    "Authorization": _TEXT,
}
"""The schema of each argument, and its description. An argument of another name can have any type."""


def check_arguments(backend: Backend, given: Mapping[str, Any]) -> None:
    """Check the names and types of a backend's arguments.

    Args:
        backend: the entry of the table.
        given: the values by name; None only for unknown names.

    Raises:
        ConfigError: an argument is unknown, missing or of the wrong type; the message says what is allowed.
    """
    try:
        _validator_of(backend).validate_python(dict(given))
    except ValidationError as error:
        # Without the cause, which contains the values.
        raise ConfigError(_message(backend, given, error)) from None
    if "http_client" in backend.arguments and (client := given.get("http_client")) is not None:
        _check_http_client(backend, client)


def example_of(backend: Backend) -> dict[str, str]:
    """Arguments that a call needs."""
    examples = {"model_name": backend.example, "base_url": backend.example_url}
    return {name: examples[name] for name in backend.required or ("model_name",)}


def _check_http_client(backend: Backend, client: Any) -> None:
    """Check the class of an HTTP client, by its name: importing an SDK takes long. And that it stays at one server."""
    kinds = {cls.__module__.partition(".")[0] for cls in type(client).__mro__ if cls.__name__ == "AsyncClient"}
    if not kinds.intersection(backend.http_clients):
        wanted = " or ".join(f"an {name}.AsyncClient" for name in backend.http_clients)
        module = type(client).__module__.partition(".")[0]
        raise ConfigError(
            f"http_client in backend_kwargs of {backend.name!r} must be {wanted}, not {module}.{type(client).__name__}."
        )
    if client.follow_redirects:
        raise ConfigError(
            "http_client in backend_kwargs follows redirects, which carry keys to other servers: make it with "
            "follow_redirects=False."
        )


def _validator_of(backend: Backend) -> SchemaValidator:
    fields = {
        name: cs.typed_dict_field(
            TYPES[name][0] if name in TYPES else cs.any_schema(), required=name in backend.required
        )
        for name in backend.arguments
    }
    extra: cs.ExtraBehavior = "allow" if backend.others else "forbid"
    return SchemaValidator(cs.typed_dict_schema(fields, extra_behavior=extra, config=cs.CoreConfig(strict=True)))


def _message(backend: Backend, given: Mapping[str, Any], error: ValidationError) -> str:
    wrong = [(problem["type"], str(problem["loc"][0])) for problem in error.errors(include_url=False)]
    if unknown := [name for kind, name in wrong if kind == "extra_forbidden"]:
        allowed = ", ".join(map(repr, backend.arguments))
        return (
            f"backend_kwargs of {backend.name!r} has no argument {unknown[0]!r}"
            f"{suggestion(unknown[0], backend.arguments)} Allowed: {allowed}."
        )
    if missing := [name for kind, name in wrong if kind == "missing"]:
        variable = backend.base_url_variable if "base_url" in missing else None
        return (
            f"backend_kwargs of {backend.name!r} needs {', '.join(map(repr, missing))}, for example "
            f"backend_kwargs={example_of(backend)}." + (f" {variable} can hold the base_url." if variable else "")
        )
    _, name = wrong[0]
    shown = "something else" if name in SECRETS else repr(given[name])
    return f"{name} in backend_kwargs must be {TYPES[name][1]}, not {shown}."
