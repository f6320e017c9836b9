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
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import terminal
from rlm_kernel.cli import exit_codes, gateway_options
from rlm_kernel.clients import options
from rlm_kernel.errors import ConfigError, check_extra

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from rlm_kernel.gateway.client_files import Change
    from rlm_kernel.gateway.gateway import Gateway
    from rlm_kernel.gateway.models import Models
    from rlm_kernel.gateway.trail import Audit

NAME = "gateway"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    actions = {"serve": _serve, "audit": _audit, "install": _install, "workspace": _workspace}
    add("action", nargs="?", choices=actions, default="serve", metavar="ACTION", help="see above (default: serve)")
    add("target", nargs="?", metavar="TARGET", help="of the action")
    gateway_options.add_options(parser)
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
    gateway_options.check(args)
    code: int = args.actions[args.action](args)
    return code


def _serve(args: Namespace) -> int:
    from rlm_kernel.gateway.gateway import Gateway

    if args.mode == "http" and args.repo_path is None:
        raise ConfigError("HTTP needs --repo-path: the repository to serve.")
    verifiers = _verifiers(args) if args.mode == "http" else []
    gateway = Gateway(args.repo_path or Path.cwd(), args.data_dir or _data_folder(), _models(args))
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(gateway, args, verifiers))
    return exit_codes.OK


async def _run(gateway: Gateway, args: Namespace, verifiers: list[Any]) -> None:
    if args.mode != "http":
        from rlm_kernel.gateway.server import serve_stdio

        await serve_stdio(gateway)
        return
    from rlm_kernel.gateway.oauth import AnyOf, discover
    from rlm_kernel.gateway.web import Address, serve_http

    oauth = _oauth(args)
    if oauth is not None:
        verifiers = [*verifiers, await discover(oauth)]
    given = {name: getattr(args, name) for name in ("host", "port", "rate")}
    where = Address(
        **{name: value for name, value in given.items() if value is not None},
        hosts=args.allow_host,
        origins=args.allow_origin,
        certificate=args.tls_cert,
        certificate_key=args.tls_key,
        oauth=oauth,
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

    backend = args.backend or os.environ.get("RLM_BACKEND")
    if not backend:
        return Models()
    model = args.model or os.environ.get("RLM_MODEL_NAME")
    kwargs = options.backend_kwargs(backend, model, args.base_url, args.backend_kwarg)
    options.fetch(backend, kwargs)
    models = Models(backend, kwargs, args.environment or Models.environment, args.prompts)
    models.check()
    return models


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
        terminal.print_result(f"{one.path}: {one.flaw or _described(one)}")
    return exit_codes.DIFFERENT if any(one.flaw for one in audits) else exit_codes.OK


def _described(one: Audit) -> str:
    end = ", and a last line that is cut" if one.is_cut else ""
    calls = f"{one.calls} calls, {one.refused} refused"
    return f"valid: {calls}, {one.spans} spans, {one.output_bytes:,} bytes left{end}"


def _install(args: Namespace) -> int:
    from rlm_kernel.gateway.client_files import CLIENTS, change_for

    if args.target is None:
        raise ConfigError(f"install needs a CLIENT: {', '.join(CLIENTS)}.")
    repository = str((args.repo_path or Path.cwd()).resolve())
    command = [_program(), "gateway", "--repo-path", repository, *_more_of_command(args)]
    _write([change_for(args.target, Path.cwd(), url=args.url, command=command)], yes=args.yes)
    return exit_codes.OK


def _more_of_command(args: Namespace) -> list[str]:
    """The other options of the command that a client runs."""
    if args.backend:
        options.backend_kwargs(args.backend, args.model or os.environ.get("RLM_MODEL_NAME"), None, args.backend_kwarg)
    single = {name: getattr(args, name) for name in gateway_options.MODEL if name != "backend_kwarg"}
    single["data_dir"] = args.data_dir and args.data_dir.resolve()
    pairs = [(name, value) for name, value in single.items() if value is not None]
    pairs += [("backend_kwarg", value) for value in args.backend_kwarg]
    return [f"--{name.replace('_', '-')}={value}" for name, value in pairs]


def _write(changes: Sequence[Change], *, yes: bool) -> None:
    """Show the changes, ask, keep copies, and write. With `yes` nothing is asked, and new files are not shown.

    Raises:
        ConfigError: the answer was no, or a file cannot be written.
    """
    for change in changes:
        if not change.diff:
            terminal.print_note(f"rlm: {change.path} is set up already")
            continue
        if not yes or change.before is not None:
            terminal.print_note(change.diff.rstrip())
        if not (yes or terminal.confirm("write this file?")):
            raise ConfigError(f"{change.path} was not written: type y at the question (it reads stdin), or give --yes.")
        copy = change.apply()
        if copy is not None:
            terminal.print_note(f"rlm: the file before is kept as {copy}")
        terminal.print_result(str(change.path))


def _program() -> str:
    """Of this installation: an editor that was not started in its environment does not find it by name."""
    program = Path(sys.executable).with_name("rlm")
    return str(program) if program.exists() else "rlm"


def _workspace(args: Namespace) -> int:
    from rlm_kernel.gateway.client_files import workspace

    if args.target is None or args.url is None:
        raise ConfigError(
            "workspace needs a DIR and the gateway: rlm gateway workspace DIR --url https://HOST:8080/mcp"
        )
    changes = workspace(Path(args.target), args.url)
    new = all(change.before is None for change in changes)
    _write(changes, yes=new or args.yes)
    return exit_codes.OK
