"""From the name of a backend and `backend_kwargs` to a model client.

Everything a user can get wrong is found here, before anything starts: an unknown name, an argument that is missing,
unknown or of the wrong kind, a key that is nowhere, a package that is not installed. A backend's module is imported
when it is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from ipaddress import IPv6Address
from pathlib import Path
from stat import S_ISFIFO, S_ISREG
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rlm_kernel.clients.arguments import check
from rlm_kernel.clients.backends import BACKENDS, Backend
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rlm_kernel.clients.lm import LM

_HOST_AND_PORT = re.compile(r"(?P<host>\[[^]]*\]|[^:/]*)(:(?P<port>\w*))?(?P<path>(/.*)?)")

__all__ = ["BACKENDS", "Backend", "build", "environment_variables", "find"]


def find(name: str) -> Backend:
    """The backend of this name.

    Raises:
        ConfigError: there is none; the message lists them.
    """
    backend = BACKENDS.get(name) if isinstance(name, str) else None
    if backend is None:
        raise ConfigError(f"Unknown backend {name!r}{_meant(name, BACKENDS)} Allowed: {_list(BACKENDS)}.")
    return backend


def build(name: str, backend_kwargs: Mapping[str, Any] | None, env: Mapping[str, str]) -> LM:
    """Make the client of a model. Nothing is connected or started.

    Args:
        name: a name of the table.
        backend_kwargs: the arguments; a None among them counts as not given.
        env: where keys and endpoints are looked up, see `environment_variables`.

    Raises:
        ConfigError: the name or an argument is wrong, the key is missing, or a package is.
    """
    backend = find(name)
    given = _given(backend, {} if backend_kwargs is None else backend_kwargs)
    if "base_url" in backend.arguments and (url := given.get("base_url") or _base_url(backend, env)) is not None:
        given["base_url"] = url
    _check_required(backend, given)
    _check_installed(backend)
    if backend.key_variable or backend.key:
        given["api_key"] = given.get("api_key") or _key(backend, env)
    for argument, value in given.items():
        check(argument, value)
    if "base_url" in given:
        given["base_url"] = _with_path(given["base_url"], backend.path)
    return backend.create(_with_options(backend, given, env) if backend.others else given)


def environment_variables(cwd: Path | None = None, *, pipes: bool = True) -> Mapping[str, str]:
    """The variables of the nearest `.env` file, and over them those of the process, which stay as they are.

    Args:
        cwd: where the search for `.env` starts, upward; the working directory unless given.
        pipes: whether a pipe is read, too: it may have been filled for one reader.

    Raises:
        ConfigError: the `.env` file cannot be read.
    """
    nearest = next((path for path in _places(cwd) if _holds_variables(path, pipes=pipes)), None)
    return MappingProxyType({**(_dotenv(nearest) if nearest else {}), **os.environ})


def _places(cwd: Path | None) -> list[Path]:
    """Where a `.env` may be, the nearest first."""
    try:
        start = (cwd or Path.cwd()).absolute()
    except FileNotFoundError:  # the working directory was removed
        return []
    return [folder / ".env" for folder in (start, *start.parents)]


def _holds_variables(path: Path, *, pipes: bool) -> bool:
    """Whether it is a file or a pipe, filled by a password manager; a folder of that name is somebody's venv."""
    try:
        mode = path.stat().st_mode
    except OSError:  # not there, or in a folder that may not be searched
        return False
    return S_ISREG(mode) or (pipes and S_ISFIFO(mode))


def _dotenv(path: Path) -> dict[str, str]:
    from dotenv import dotenv_values

    try:
        values = dotenv_values(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): repair or remove it.") from error
    return {name: value for name, value in values.items() if value is not None}


def _given(backend: Backend, arguments: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(arguments, Mapping):
        raise ConfigError(f"backend_kwargs is a dict such as {_example(backend)}, not a {type(arguments).__name__}.")
    unknown = [name for name in arguments if name not in backend.arguments]
    if unknown and not backend.others:
        raise ConfigError(
            f"backend_kwargs of {backend.name!r} has no argument {unknown[0]!r}"
            f"{_meant(unknown[0], backend.arguments)} Allowed: {_list(backend.arguments)}."
        )
    return {name: value for name, value in arguments.items() if value is not None}


def _check_required(backend: Backend, given: Mapping[str, Any]) -> None:
    if missing := [name for name in backend.required if name not in given]:
        variable = backend.base_url_variable if "base_url" in missing else None
        raise ConfigError(
            f"backend_kwargs of {backend.name!r} needs {_list(missing)}, for example "
            f"backend_kwargs={_example(backend)}." + (f" {variable} can hold the base_url." if variable else "")
        )


def _base_url(backend: Backend, env: Mapping[str, str]) -> str | None:
    """The endpoint of the environment, else the table's. OLLAMA_HOST may be written without scheme, host or port."""
    url = env.get(backend.base_url_variable or "", "").strip()
    if not url or "://" in url:
        return url or backend.base_url
    usual = urlsplit(backend.base_url or "")
    given = _HOST_AND_PORT.fullmatch(f"[{url}]" if _is_ipv6(url) else url)
    if usual.port is None or given is None:
        return f"http://{url}"
    return f"http://{given['host'] or usual.hostname}:{given['port'] or usual.port}{given['path']}"


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


def _key(backend: Backend, env: Mapping[str, str]) -> str:
    if key := env.get(backend.key_variable or "", "").strip() or backend.key:
        return key
    raise ConfigError(
        f"No API key for {backend.name!r}: set {backend.key_variable} in the environment or in a .env file of the "
        "working directory or one above it (Python code may also give api_key in backend_kwargs). A server that wants "
        "no key takes any word, such as EMPTY."
    )


def _check_installed(backend: Backend) -> None:
    if backend.package is not None and find_spec(backend.package) is None:
        raise ConfigError(
            f"The backend {backend.name!r} needs the extra {backend.extra!r}: "
            f"pip install 'rlm-kernel[{backend.extra}]'."
        )


def _example(backend: Backend) -> dict[str, str]:
    examples = {"model_name": backend.example, "base_url": backend.example_url}
    return {name: examples[name] for name in backend.required or ("model_name",)}


def _meant(name: object, allowed: Iterable[str]) -> str:
    close = get_close_matches(str(name), list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def _list(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
