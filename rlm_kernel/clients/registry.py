"""The table of backends: from a name and `backend_kwargs` to a model client.

Everything a user can get wrong is found here, before anything starts: an unknown name, an argument that is
missing, unknown or of the wrong kind, a key that is nowhere. A backend's module is imported when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rlm_kernel.clients.lm import LM

EVERY_MODEL = "Every model"
"""The title of the issue that brings the backends which are not built yet."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One row of the table.

    Attributes:
        name: what `RLM(backend=...)` is given.
        factory: ``"module:Class"``, called with the arguments.
        required: arguments that must be in `backend_kwargs`.
        optional: arguments that may be.
        key_variable: the environment variable of the key; None when the backend wants no key.
        base_url_variable: the environment variable of the endpoint, or None.
        profile: the kind of prompt its models need.
        issue: the title of the issue that builds it, or None when it is built.
    """

    name: str
    factory: str = ""
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    key_variable: str | None = None
    base_url_variable: str | None = None
    profile: Literal["large", "small"] = "large"
    issue: str | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """All arguments it takes."""
        return (*self.required, *self.optional)

    def create(self, arguments: Mapping[str, Any]) -> LM:
        """Call the factory."""
        module, _, name = self.factory.partition(":")
        lm: LM = getattr(import_module(module), name)(**arguments)
        return lm


_COMMON = ("max_tokens", "sampling_args", "timeout")

BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        backend.name: backend
        for backend in (
            Backend(
                "openai",
                "rlm_kernel.clients.openai:OpenAILM",
                required=("model_name",),
                optional=("api_key", "base_url", "context_window", "max_retries", *_COMMON),
                key_variable="OPENAI_API_KEY",
                base_url_variable="OPENAI_BASE_URL",
            ),
            Backend(
                "llamacpp",
                "rlm_kernel.clients.llamacpp:LlamaCppLM",
                optional=("model_name", "model_path", "base_url", "n_ctx", "n_parallel", *_COMMON),
                profile="small",
            ),
            Backend("anthropic", key_variable="ANTHROPIC_API_KEY", issue=EVERY_MODEL),
            Backend("portkey", key_variable="PORTKEY_API_KEY", issue=EVERY_MODEL),
            Backend("openrouter", key_variable="OPENROUTER_API_KEY", issue=EVERY_MODEL),
            Backend("vllm", issue=EVERY_MODEL),
            Backend("litellm", issue=EVERY_MODEL),
        )
    }
)


def find(name: str) -> Backend:
    """The backend of this name.

    Raises:
        ConfigError: there is none; the message lists them.
        NotImplementedError: it is documented, but not built yet.
    """
    backend = BACKENDS.get(name) if isinstance(name, str) else None
    if backend is None:
        raise ConfigError(f"Unknown backend {name!r}{_meant(name, BACKENDS)} Allowed: {_list(BACKENDS)}.")
    if backend.issue is not None:
        built = _list(b.name for b in BACKENDS.values() if b.issue is None)
        raise NotImplementedError(
            f"backend={name!r} is not built yet: it comes with the issue {backend.issue!r}. Built: {built}."
        )
    return backend


def build(name: str, backend_kwargs: Mapping[str, Any] | None, env: Mapping[str, str]) -> LM:
    """Make the client of a model. Nothing is connected or started.

    Args:
        name: a name of the table.
        backend_kwargs: the arguments; a None among them counts as not given.
        env: where keys are looked up, see `environment_variables`.

    Raises:
        ConfigError: the name or an argument is wrong, or the key is missing.
        NotImplementedError: the backend is documented, but not built yet.
    """
    backend = find(name)
    given = _given(backend, {} if backend_kwargs is None else backend_kwargs)
    if backend.key_variable is not None:
        given["api_key"] = given.get("api_key") or _key(backend.key_variable, env)
    if backend.base_url_variable is not None and (url := env.get(backend.base_url_variable)):
        given = {"base_url": url, **given}
    for argument, value in given.items():
        _check(argument, value)
    return backend.create(given)


def environment_variables(cwd: Path | None = None) -> Mapping[str, str]:
    """The variables of the nearest `.env` file, and over them those of the process, which stay as they are.

    Args:
        cwd: where the search for `.env` starts, upward; the working directory unless given.

    Raises:
        ConfigError: the `.env` file cannot be read.
    """
    start = (cwd or Path.cwd()).absolute()
    candidates = (folder / ".env" for folder in (start, *start.parents))
    # A .env may be a pipe, filled by a password manager; a folder of that name is somebody's venv.
    nearest = next((path for path in candidates if path.is_file() or path.is_fifo()), None)
    return MappingProxyType({**(_dotenv(nearest) if nearest else {}), **os.environ})


def _dotenv(path: Path) -> dict[str, str]:
    from dotenv import dotenv_values

    try:
        values = dotenv_values(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): repair or remove it.") from error
    return {name: value for name, value in values.items() if value is not None}


def _given(backend: Backend, arguments: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(arguments, Mapping):
        raise ConfigError(f"backend_kwargs is a dict such as {_example(backend)}, not {arguments!r}.")
    if unknown := [name for name in arguments if name not in backend.arguments]:
        raise ConfigError(
            f"backend_kwargs of {backend.name!r} has no argument {unknown[0]!r}"
            f"{_meant(unknown[0], backend.arguments)} Allowed: {_list(backend.arguments)}."
        )
    given = {name: value for name, value in arguments.items() if value is not None}
    if missing := [name for name in backend.required if name not in given]:
        raise ConfigError(
            f"backend_kwargs of {backend.name!r} needs {_list(missing)}, for example "
            f"backend_kwargs={_example(backend)}."
        )
    return given


def _key(variable: str, env: Mapping[str, str]) -> str:
    if key := env.get(variable, "").strip():
        return key
    raise ConfigError(
        f"No API key: give api_key in backend_kwargs, or set {variable} in the environment or in a .env file "
        "of the working directory or one above it. A server that wants no key takes any word, such as EMPTY."
    )


_EXAMPLES = {"model_name": "gpt-5-mini", "base_url": "http://localhost:8000/v1"}


def _example(backend: Backend) -> dict[str, str]:
    return {name: _EXAMPLES[name] for name in backend.required or ("model_name",)}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_url(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_retries(value: object) -> bool:
    return value == 0 or _is_count(value)


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


_KINDS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "model_name": (_is_text, "the name of a model"),
    "api_key": (_is_text, "a text"),
    "base_url": (_is_url, "a URL that starts with http:// or https://"),
    "model_path": (lambda value: isinstance(value, str | Path), "the path of a file"),
    "context_window": (_is_count, "a whole number of tokens, at least 1"),
    "max_tokens": (_is_count, "a whole number of tokens, at least 1"),
    "n_ctx": (_is_count, "a whole number of tokens, at least 1"),
    "n_parallel": (_is_count, "a whole number, at least 1"),
    "max_retries": (_is_retries, "a whole number, at least 0"),
    "timeout": (_is_seconds, "a number of seconds above 0"),
    "sampling_args": (lambda value: isinstance(value, Mapping), "a dict such as {'temperature': 0}"),
}


def _check(argument: str, value: object) -> None:
    fits, kind = _KINDS[argument]
    if not fits(value):
        shown = "something else" if argument == "api_key" else repr(value)
        raise ConfigError(f"{argument} in backend_kwargs must be {kind}, not {shown}.")


def _meant(name: object, allowed: Iterable[str]) -> str:
    close = get_close_matches(str(name), list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def _list(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
