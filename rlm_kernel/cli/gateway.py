"""Serve a repository to AI agents over MCP, within limits.

Agents read at most 200 lines and 8 KiB at a time, by handles, and every byte that leaves is in a
signed trail. ACTION is serve (the default), or

  audit PATH       verify a trail, or a folder of trails
  install CLIENT   let claude-code, cursor, vscode, copilot or zed use the gateway, in this folder
  workspace DIR    make a folder for an editor that holds configuration only (needs --url)

Over stdio the gateway serves one client, which starts it. Over HTTP each request needs a key:
RLM_GATEWAY_API_KEY, a file of lines `NAME SCOPES KEY` with the scopes read, exec and complete, or a
token of --oauth-issuer with these scopes. The tokens are JWTs, or are introspected if
RLM_GATEWAY_OAUTH_CLIENT_ID and RLM_GATEWAY_OAUTH_CLIENT_SECRET are set.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import terminal
from rlm_kernel.cli import exit_codes, shared_options
from rlm_kernel.clients import options
from rlm_kernel.errors import ConfigError, check_extra

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rlm_kernel.gateway.gateway import Gateway
    from rlm_kernel.gateway.models import Models

NAME = "gateway"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    actions = {"serve": _serve, "audit": _audit, "install": _install, "workspace": _workspace}
    add("action", nargs="?", choices=actions, default="serve", metavar="ACTION", help="see above (default: serve)")
    add("target", nargs="?", metavar="TARGET", help="of the action")
    add("--mode", choices=("stdio", "http"), default="stdio", help="the transport (default: %(default)s)")
    add("--repo-path", type=Path, metavar="DIR", help="the repository (default over stdio: the working directory)")
    add("--data-dir", type=Path, metavar="DIR", help="of trail and index, outside of the repository")
    add("--url", metavar="URL", help="of a gateway over HTTP, as clients name it")
    web = parser.add_argument_group("HTTP").add_argument
    web("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    web("--port", type=int, default=8080, help="default: %(default)s; 0: any free port")
    web("--api-key", metavar="KEY", help="every user of the machine can read it here: prefer RLM_GATEWAY_API_KEY")
    web("--key-file", type=Path, metavar="FILE", help="keys, one a line; read again when it changes")
    web("--oauth-issuer", metavar="URL", help="an authorization server (needs --url)")
    web("--oauth-audience", metavar="NAME", help="what its tokens name as audience (default: --url)")
    web("--allow-host", action="append", default=[], metavar="NAME", help="a Host that requests may name")
    web("--allow-origin", action="append", default=[], metavar="URL", help="an Origin that requests may name")
    web("--tls-cert", type=Path, metavar="FILE")
    web("--tls-key", type=Path, metavar="FILE")
    web("--rate", type=int, default=3000, metavar="N", help="requests per minute and key (default: %(default)s)")
    shared_options.add_model(parser, "none: rlm.complete is refused")
    add("--environment", default="docker", help="where code of rlm.complete runs (default: %(default)s)")
    add("--prompts", choices=("large", "small"), help="the prompt profile of rlm.complete")
    parser.set_defaults(actions=actions)


def execute(args: Namespace) -> int:
    """Serve until the client leaves or Ctrl-C, or do another action.

    Raises:
        ConfigError, RecordingError: an option or a file cannot be used.
    """
    for module in ("mcp", "pathspec", "re2"):
        check_extra("The gateway", module, "mcp")
    if args.action == "serve" and args.target is not None:
        raise ConfigError("serve takes no TARGET: give the repository with --repo-path.")
    code: int = args.actions[args.action](args)
    return code


def _serve(args: Namespace) -> int:
    from rlm_kernel.gateway.gateway import Gateway

    if args.mode == "http" and args.repo_path is None:
        raise ConfigError("HTTP needs --repo-path: the repository to serve.")
    if args.rate < 1:
        raise ConfigError("--rate must be at least 1 request per minute.")
    verifiers = _verifiers(args) if args.mode == "http" else []
    gateway = Gateway(args.repo_path or Path.cwd(), args.data_dir or _data_folder(), _models(args))
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(gateway, args, verifiers))
    return exit_codes.OK


async def _run(gateway: Gateway, args: Namespace, verifiers: list[Any]) -> None:
    if args.mode == "stdio":
        from rlm_kernel.gateway.server import serve_stdio

        await serve_stdio(gateway)
        return
    from rlm_kernel.gateway.oauth import AnyOf, discover
    from rlm_kernel.gateway.web import Address, serve_http

    oauth = _oauth(args)
    if oauth is not None:
        verifiers = [*verifiers, await discover(oauth)]
    where = Address(
        args.host, args.port, args.allow_host, args.allow_origin, args.tls_cert, args.tls_key, args.rate, oauth
    )
    await serve_http(gateway, AnyOf(verifiers), where)


def _verifiers(args: Namespace) -> list[Any]:
    """Of the keys. There must be one, unless an authorization server gives tokens."""
    from rlm_kernel.gateway.keys import Keys, key_of_environment

    single = args.api_key or key_of_environment()
    without = args.oauth_issuer is not None and not single and args.key_file is None
    return [] if without else [Keys(single, args.key_file)]


def _oauth(args: Namespace) -> Any:
    from rlm_kernel.gateway.oauth import OAuth

    if args.oauth_issuer is None:
        return None
    if args.url is None:
        raise ConfigError("OAuth needs --url: the gateway as clients name it, such as https://HOST:8080/mcp.")
    prefix = "RLM_GATEWAY_OAUTH_CLIENT_"
    name, secret = os.environ.get(f"{prefix}ID"), os.environ.get(f"{prefix}SECRET")
    credentials = (name, secret) if name and secret else None
    return OAuth(args.oauth_issuer, args.url, args.oauth_audience or args.url, credentials)


def _models(args: Namespace) -> Models:
    """The model of `rlm.complete`: of the options, or of RLM_BACKEND and RLM_MODEL_NAME."""
    from rlm_kernel.gateway.models import Models

    backend = args.backend or os.environ.get("RLM_BACKEND") or ("openai" if shared_options.names_model(args) else None)
    if backend is None:
        return Models()
    model = args.model or os.environ.get("RLM_MODEL_NAME")
    kwargs = options.backend_kwargs(backend, model, args.base_url, args.backend_kwarg)
    options.fetch(backend, kwargs)
    return Models(backend, kwargs, args.environment, args.prompts)


def _data_folder() -> Path:
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "rlm_gateway"


def _audit(args: Namespace) -> int:
    from rlm_kernel.gateway.trail import audit

    path = Path(args.target) if args.target else (args.data_dir or _data_folder()) / "trail"
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"There is no trail in {path}: give a file, or the folder `trail` of --data-dir.")
    audits = [audit(file) for file in files]
    for one in audits:
        end = ", and a last line that is cut" if one.is_cut else ""
        said = one.flaw or f"valid: {one.calls} calls, {one.spans} spans, {one.output_bytes:,} bytes left{end}"
        terminal.print_result(f"{one.path}: {said}")
    return exit_codes.DIFFERENT if any(one.flaw for one in audits) else exit_codes.OK


def _install(args: Namespace) -> int:
    from rlm_kernel.gateway.client_files import CLIENTS, change_for

    if args.target is None:
        raise ConfigError(f"install needs a CLIENT: {', '.join(CLIENTS)}.")
    repository = str((args.repo_path or Path.cwd()).resolve())
    command = ["rlm", "gateway", "--repo-path", repository]
    change = change_for(args.target, Path.cwd(), url=args.url, command=command)
    if not change.diff:
        terminal.print_note(f"rlm: {change.path} is set up already")
        return exit_codes.OK
    terminal.print_note(change.diff.rstrip())
    if not terminal.confirm("write this file?"):
        raise ConfigError("Nothing was written.")
    copy = change.apply()
    if copy is not None:
        terminal.print_note(f"rlm: the file before is kept as {copy}")
    terminal.print_result(str(change.path))
    return exit_codes.OK


def _workspace(args: Namespace) -> int:
    from rlm_kernel.gateway.client_files import workspace

    if args.target is None or args.url is None:
        raise ConfigError(
            "workspace needs a DIR and the gateway: rlm gateway workspace DIR --url https://HOST:8080/mcp"
        )
    for change in workspace(Path(args.target), args.url):
        if change.diff:
            change.apply()
        terminal.print_result(str(change.path))
    return exit_codes.OK
