"""Be the agent of an editor: Zed, JetBrains, Neovim and others that speak the Agent Client Protocol.

The editor starts this command and speaks with it over stdin and stdout. Each conversation is kept
in a folder of its own, with its log and its notebook, and goes on after a restart.

API keys are read from the environment (OPENAI_API_KEY ...) or from a .env file in the working
directory or a parent of it.
"""

from __future__ import annotations

import asyncio
import os
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel.cli import exit_codes, run
from rlm_kernel.clients import options, registry
from rlm_kernel.errors import ConfigError, check_extra

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from rlm_kernel.acp.settings import Settings

NAME = "acp"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    run.add_run_options(parser)
    add("--also-model", metavar="MODEL", action="append", default=[], help="a further model that the editor may choose")
    add("--max-sessions", type=int, default=16, metavar="N", help="live kernels at a time (default: %(default)s)")
    add("--log-dir", metavar="DIR", help="folder of the conversations (default: ~/.local/state/rlm/acp)")


def execute(args: Namespace) -> int:
    """Serve the editor until it closes stdin.

    Raises:
        ConfigError: an option is wrong, or a package is missing.
    """
    for module in ("acp", "pathspec", "re2"):
        check_extra("rlm acp", module, "acp")
    settings = _settings(args)
    for name, kwargs in run.arguments_of(args, attachable=False)[1]:
        options.fetch(name, kwargs)
    from rlm_kernel.acp.server import serve

    asyncio.run(serve(settings))
    return exit_codes.OK


def _settings(args: Namespace) -> Settings:
    from rlm_kernel.acp.settings import Settings

    if args.max_sessions < 1:
        raise ConfigError("--max-sessions is a number from 1.")
    arguments, _ = run.arguments_of(args, attachable=False)
    backend = registry.find(arguments["backend"])
    models = tuple(dict.fromkeys(filter(None, (args.model, *args.also_model))))
    folder = Path(args.log_dir) if args.log_dir else _state() / "rlm" / "acp"
    return Settings(
        arguments=lambda model: agent_arguments(args, model),
        models=models,
        backend=backend.name,
        key_variable=backend.key_variable or "",
        folder=folder.absolute(),
        asks=not args.yes,
        max_sessions=args.max_sessions,
    )


def agent_arguments(args: Namespace, model: str | None) -> dict[str, Any]:
    """The arguments of an `AgentRLM` with this model; None: the one of the command line."""
    chosen = Namespace(**{**vars(args), "model": model or args.model})
    given, _ = run.arguments_of(chosen, attachable=False)
    place, kwargs = given.pop("environment"), given.pop("environment_kwargs") or {}
    given["max_cost"] = given.pop("max_budget", None)
    return {**given, "environment_kwargs": {**kwargs, "place": place}}


def _state() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
