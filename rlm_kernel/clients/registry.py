"""From the name of a backend and `backend_kwargs` to a model client.

All mistakes are reported here, before anything starts: an unknown name; an argument that is missing, unknown or of the
wrong type; a missing key; a package that is not installed. A backend's module is imported when it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rlm_kernel.clients import trust
from rlm_kernel.clients.backends import BACKENDS, Backend
from rlm_kernel.clients.trust import Source, Sourced, as_argument, value_of
from rlm_kernel.clients.variables import Variables, environment_variables
from rlm_kernel.errors import ConfigError, check_extra
from rlm_kernel.text import suggestion

if TYPE_CHECKING:
    from rlm_kernel.clients.base import BaseLM

_HOST_AND_PORT = re.compile(r"(?P<host>\[[^]]*\]|[^:/]*)(:(?P<port>\w*))?(?P<path>(/.*)?)")

__all__ = ["BACKENDS", "Backend", "build", "environment_variables", "find", "without_keys"]


_NO_KEY = "EMPTY"
_asks_nothing: ContextVar[bool] = ContextVar("asks_nothing", default=False)


@contextmanager
def without_keys() -> Iterator[None]:
    """A context in which clients are made that will ask nothing: no key is needed, and none is read."""
    token = _asks_nothing.set(True)
    try:
        yield
    finally:
        _asks_nothing.reset(token)


def find(name: str) -> Backend:
    """The backend of this name.

    Raises:
        ConfigError: there is no such backend; the message lists all of them.
    """
    backend = BACKENDS.get(name) if isinstance(name, str) else None
    if backend is None:
        allowed = ", ".join(map(repr, BACKENDS))
        raise ConfigError(f"Unknown backend {name!r}{suggestion(str(name), BACKENDS)} Allowed: {allowed}.")
    return backend


def build(name: str, backend_kwargs: Mapping[str, Any] | None, env: Mapping[str, str]) -> BaseLM:
    """Build the client of a model. No connection is opened, and no server is started.

    Only here do arguments, environment and `.env` become the arguments of a client, so all of them pass `trust.check`.

    Args:
        name: a name in the table.
        backend_kwargs: the arguments; None counts as not given. A value that is not `Sourced` is the user's.
        env: the variables of keys and endpoints, see `environment_variables`. A plain mapping is the user's.

    Raises:
        ConfigError: the name or an argument is wrong, the key is missing, a less trusted source names the server that
            would get the key, or a package is missing.
    """
    from rlm_kernel.clients.arguments import check_arguments

    backend, variables = find(name), Variables.of(env)
    given = _with_sources(backend, {} if backend_kwargs is None else backend_kwargs)
    if "base_url" in backend.arguments and "base_url" not in given and (found := _base_url(backend, variables)):
        given["base_url"] = found
    given = {**_not_given(backend, given, variables), **given}
    check_arguments(backend, {argument: setting.value for argument, setting in given.items()})
    if backend.package is not None:
        check_extra(f"The backend {backend.name!r}", backend.package, str(backend.extra))
    if _asks_nothing.get() and "api_key" in backend.arguments:
        given.setdefault("api_key", _default("api_key", _NO_KEY))
    if (backend.key_variable or backend.key) and "api_key" not in given:
        given["api_key"] = _key(backend, variables)
    trust.check(given, finds_keys=backend.others)
    values = {argument: setting.value for argument, setting in given.items()}
    if "base_url" in values:
        values["base_url"] = _with_path(values["base_url"], backend.path)
    return backend.create(_with_options(backend, values, variables) if backend.others else values)


def _with_sources(backend: Backend, arguments: Mapping[str, Any]) -> dict[str, Sourced[Any]]:
    """The arguments that are given. None, and an empty key or URL, count as not given; unknown names remain."""
    if not isinstance(arguments, Mapping):
        from rlm_kernel.clients.arguments import example_of

        raise ConfigError(f"backend_kwargs is a dict such as {example_of(backend)}, not a {type(arguments).__name__}.")
    named = {backend.renamed.get(name, name): as_argument(name, value) for name, value in arguments.items()}
    empty = {"api_key": (None, ""), "base_url": (None, "")}
    return {
        name: value
        for name, value in named.items()
        if (name not in backend.arguments and not backend.others) or value_of(value) not in empty.get(name, (None,))
    }


def _not_given(backend: Backend, given: Mapping[str, Sourced[Any]], variables: Variables) -> dict[str, Sourced[Any]]:
    """The arguments that the table or the environment has; those that are given override them."""
    defaults, endpoint = dict(backend.defaults), given.get("base_url")
    if endpoint is not None and "/" not in str(endpoint.value).partition("://")[2].rstrip("/"):
        defaults |= backend.of_endpoint.get(endpoint.name, {})
    found = {argument: variables.find(name) for argument, name in backend.variables.items()}
    return {
        **{name: _default(name, value) for name, value in defaults.items()},
        **{name: value for name, value in found.items() if value is not None},
    }


def _base_url(backend: Backend, variables: Variables) -> Sourced[str] | None:
    """The endpoint in the environment, or in the table. OLLAMA_HOST may lack the scheme, host or port."""
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
    """The endpoint; with the path of the API if it has no path."""
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
        "working directory or one above it (Python code may also give api_key in backend_kwargs). A server without "
        "keys accepts any word, such as EMPTY."
    )
