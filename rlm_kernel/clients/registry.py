"""From the name of a backend and `backend_kwargs` to a model client.

Everything a user can get wrong is found here, before anything starts: an unknown name; an argument that is missing,
unknown or of the wrong type; a key that is nowhere; a package that is not installed. A backend's module is imported
when it is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rlm_kernel.clients import trust
from rlm_kernel.clients.argument_types import check_argument
from rlm_kernel.clients.backends import BACKENDS, Backend
from rlm_kernel.clients.trust import Source, Sourced, as_argument, value_of
from rlm_kernel.clients.variables import Variables, environment_variables
from rlm_kernel.errors import ConfigError, check_extra
from rlm_kernel.text import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rlm_kernel.clients.base import LM

_HOST_AND_PORT = re.compile(r"(?P<host>\[[^]]*\]|[^:/]*)(:(?P<port>\w*))?(?P<path>(/.*)?)")

__all__ = ["BACKENDS", "Backend", "build", "environment_variables", "find"]


def find(name: str) -> Backend:
    """The backend of this name.

    Raises:
        ConfigError: there is none; the message lists them.
    """
    backend = BACKENDS.get(name) if isinstance(name, str) else None
    if backend is None:
        raise ConfigError(f"Unknown backend {name!r}{suggestion(str(name), BACKENDS)} Allowed: {_list(BACKENDS)}.")
    return backend


def build(name: str, backend_kwargs: Mapping[str, Any] | None, env: Mapping[str, str]) -> LM:
    """Make the client of a model. Nothing is connected or started.

    This is the one place where arguments, environment and `.env` become the arguments of a client, so all of them pass
    `trust.check`.

    Args:
        name: a name of the table.
        backend_kwargs: the arguments; a None among them counts as not given. One that is not `Sourced` is the user's.
        env: where keys and endpoints are looked up, see `environment_variables`. A plain mapping is the user's.

    Raises:
        ConfigError: the name or an argument is wrong, the key is missing or would go to a server of a less trusted
            source, or a package is missing.
    """
    backend = find(name)
    given = _check_arguments(backend, {} if backend_kwargs is None else backend_kwargs)
    variables = Variables.of(env)
    if "base_url" in backend.arguments and not _has(given, "base_url"):
        given |= _found("base_url", _base_url(backend, variables))
    _check_required(backend, given)
    _check_installed(backend)
    if (backend.key_variable or backend.key) and not _has(given, "api_key"):
        given["api_key"] = _key(backend, variables)
    for argument, setting in given.items():
        check_argument(argument, setting.value)
    trust.check(given, finds_keys=backend.others)
    values = {argument: setting.value for argument, setting in given.items()}
    if "base_url" in values:
        values["base_url"] = _with_path(values["base_url"], backend.path)
    return backend.create(_with_options(backend, values, variables) if backend.others else values)


def _check_arguments(backend: Backend, arguments: Mapping[str, Any]) -> dict[str, Sourced[Any]]:
    if not isinstance(arguments, Mapping):
        raise ConfigError(f"backend_kwargs is a dict such as {_example(backend)}, not a {type(arguments).__name__}.")
    unknown = [name for name in arguments if name not in backend.arguments]
    if unknown and not backend.others:
        raise ConfigError(
            f"backend_kwargs of {backend.name!r} has no argument {unknown[0]!r}"
            f"{suggestion(str(unknown[0]), backend.arguments)} Allowed: {_list(backend.arguments)}."
        )
    return {name: as_argument(name, value) for name, value in arguments.items() if value_of(value) is not None}


def _has(given: Mapping[str, Sourced[Any]], argument: str) -> bool:
    """Whether an argument is given and not empty."""
    return argument in given and bool(given[argument].value)


def _found(argument: str, setting: Sourced[str] | None) -> dict[str, Sourced[Any]]:
    return {} if setting is None else {argument: setting}


def _check_required(backend: Backend, given: Mapping[str, Any]) -> None:
    if missing := [name for name in backend.required if name not in given]:
        variable = backend.base_url_variable if "base_url" in missing else None
        raise ConfigError(
            f"backend_kwargs of {backend.name!r} needs {_list(missing)}, for example "
            f"backend_kwargs={_example(backend)}." + (f" {variable} can hold the base_url." if variable else "")
        )


def _base_url(backend: Backend, variables: Variables) -> Sourced[str] | None:
    """The endpoint of the environment, else the table's. OLLAMA_HOST may be written without scheme, host or port."""
    found = variables.find(backend.base_url_variable)
    if found is None:
        return None if backend.base_url is None else _default("base_url", backend.base_url)
    if "://" in found.value:
        return found
    usual = urlsplit(backend.base_url or "")
    parts = _HOST_AND_PORT.fullmatch(f"[{found.value}]" if _is_ipv6(found.value) else found.value)
    if usual.port is None or parts is None:
        return replace(found, value=f"http://{found.value}")
    url = f"http://{parts['host'] or usual.hostname}:{parts['port'] or usual.port}{parts['path']}"
    return replace(found, value=url)


def _default(argument: str, value: str) -> Sourced[str]:
    return Sourced(value, Source.DEFAULT, argument, "the table of backends")


def _is_ipv6(address: str) -> bool:
    try:
        return bool(IPv6Address(address))
    except ValueError:
        return False


def _with_path(url: str, path: str) -> str:
    """The endpoint with the path of the API, where it names only a host."""
    return url.rstrip("/") + path if path and not urlsplit(url).path.strip("/") else url


def _with_options(backend: Backend, given: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
    known = {name: value for name, value in given.items() if name in backend.arguments}
    options = {name: value for name, value in given.items() if name not in known}
    return {**known, "options": options, "env": env}


def _key(backend: Backend, variables: Variables) -> Sourced[str]:
    if found := variables.find(backend.key_variable):
        return found
    if backend.key:
        return _default("api_key", backend.key)
    raise ConfigError(
        f"No API key for {backend.name!r}: set {backend.key_variable} in the environment or in a .env file of the "
        "working directory or one above it (Python code may also give api_key in backend_kwargs). A server that wants "
        "no key takes any word, such as EMPTY."
    )


def _check_installed(backend: Backend) -> None:
    if backend.package is not None:
        check_extra(f"The backend {backend.name!r}", backend.package, str(backend.extra))


def _example(backend: Backend) -> dict[str, str]:
    examples = {"model_name": backend.example, "base_url": backend.example_url}
    return {name: examples[name] for name in backend.required or ("model_name",)}


def _list(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
