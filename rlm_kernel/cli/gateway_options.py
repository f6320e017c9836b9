"""The options of `rlm gateway`, and which of them each action takes."""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rlm_kernel.cli import shared_options
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

MODEL = ("backend", "model", "base_url", "backend_kwarg", "environment", "prompts")
_HTTP = (
    "url host port api_key key_file oauth_issuer oauth_audience allow_host allow_origin tls_cert tls_key rate"
).split()
_FOLDERS = ("repo_path", "data_dir")
_TAKEN = {
    "serve over stdio": {"mode", *_FOLDERS, *MODEL},
    "serve --mode http": {"mode", *_FOLDERS, *MODEL, *_HTTP},
    "install": {"yes", *_FOLDERS, *MODEL},
    "install --url": {"yes", "url"},
    "workspace": {"yes", "url"},
    "audit": {"data_dir"},
}
_MAX_PORT = 65535


def add_options(parser: ArgumentParser) -> None:
    """Declare the options. Those that are not given are None or empty: see `check`."""
    add = parser.add_argument
    add("--mode", choices=("stdio", "http"), help="the transport (default: stdio)")
    add("--repo-path", type=_path, metavar="DIR", help="the repository (default over stdio: the working directory)")
    add("--data-dir", type=_path, metavar="DIR", help="of trail and index, outside of the repository")
    add("--url", metavar="URL", help="of a gateway over HTTP, as clients name it")
    add("--yes", action="store_true", help="install, workspace: write without a question")
    web = parser.add_argument_group("HTTP").add_argument
    web("--host", help="the address to listen on (default: 127.0.0.1)")
    web("--port", type=int, help="default: 8080; 0: any free port")
    web("--api-key", metavar="KEY", help="every user of the machine can read it here: prefer RLM_GATEWAY_API_KEY")
    web("--key-file", type=_path, metavar="FILE", help="keys, one a line; read again when it changes")
    web("--oauth-issuer", metavar="URL", help="an authorization server (needs --url)")
    web("--oauth-audience", metavar="NAME", help="what its tokens name as audience (default: --url)")
    web("--allow-host", action="append", default=[], metavar="NAME", help="a Host that requests may name")
    web("--allow-origin", action="append", default=[], metavar="URL", help="an Origin that requests may name")
    web("--tls-cert", type=_path, metavar="FILE")
    web("--tls-key", type=_path, metavar="FILE")
    web("--rate", type=int, metavar="N", help="requests per minute and key (default: 3000)")
    shared_options.add_model(parser, "none: rlm.complete is refused")
    add("--environment", help="where code of rlm.complete runs (default: docker)")
    add("--prompts", choices=("large", "small"), help="the prompt profile of rlm.complete")


def check(args: Namespace) -> None:
    """Check the options that need no look at a file but the repository.

    Raises:
        ConfigError: an option has no effect on the action, or a wrong value.
    """
    if args.action in ("install", "workspace") and args.api_key is not None:
        raise ConfigError(
            "No file of a client holds a key: leave out --api-key. With --url, clients find the key in "
            "RLM_GATEWAY_API_KEY, or ask for it."
        )
    what = _what(args)
    for name in sorted(set().union(*_TAKEN.values()) - _TAKEN[what]):
        if _is_given(args, name):
            places = ", ".join(place for place, taken in _TAKEN.items() if name in taken)
            raise ConfigError(f"{_option(name)} has no effect on {what}: leave it out. It is for {places}.")
    if what == "serve --mode http" and args.oauth_issuer is None and (args.url or args.oauth_audience):
        raise ConfigError(
            "--url and --oauth-audience have no effect without --oauth-issuer: give it, or leave them out."
        )
    model = [name for name in MODEL[1:] if _is_given(args, name)]
    if model and not args.backend and not os.environ.get("RLM_BACKEND"):
        raise ConfigError(f"{_option(model[0])} needs --backend: give it, for example --backend openai.")
    _check_values(args)


def _check_values(args: Namespace) -> None:
    if args.repo_path is not None and not args.repo_path.is_dir():
        raise ConfigError(f"--repo-path {args.repo_path} is no folder: give the folder of the repository.")
    if args.url is not None and not _is_url(args.url):
        raise ConfigError(f"--url {args.url} is no address: give all of it, such as https://HOST:8080/mcp.")
    if args.port is not None and not 0 <= args.port <= _MAX_PORT:
        raise ConfigError(f"--port must be 0 to {_MAX_PORT}.")
    if args.rate is not None and args.rate < 1:
        raise ConfigError("--rate must be at least 1 request per minute.")


def _what(args: Namespace) -> str:
    if args.action == "serve":
        return "serve --mode http" if args.mode == "http" else "serve over stdio"
    return "install --url" if args.action == "install" and args.url is not None else str(args.action)


def _is_given(args: Namespace, name: str) -> bool:
    value = getattr(args, name)
    return value is not None and value is not False and value != []


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _path(text: str) -> Path:
    if not text:
        raise ArgumentTypeError("the path is empty; . is the working directory")
    return Path(text)
