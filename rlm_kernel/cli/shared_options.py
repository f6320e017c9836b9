"""Options that several commands have: the context, the model and the limits."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from rlm_kernel import terminal
from rlm_kernel.inputs import add_limit


class Once(argparse.Action):
    """An option that may be given once. Without this the last value would be used, without a message."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 (part of argparse's interface)
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Store the value.

        Raises:
            argparse.ArgumentError: there is one already.
        """
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "it was given twice; to give several files, name their folder")
        setattr(namespace, self.dest, values)


def add_context(parser: argparse.ArgumentParser, help_: str) -> None:
    """Declare `--context` and its limit. `help_`: what the input is for."""
    parser.add_argument("--context", action=Once, metavar="FILE|DIR|-", help=help_)
    add_limit(parser.add_argument)


def add_model(parser: argparse.ArgumentParser, backend: str) -> None:
    """Declare the options that name the root model. `backend`: the default, for the help."""
    add = parser.add_argument
    add("--backend", help=f"the provider of the model (default: {backend})")
    add("--model", help="the name of the model")
    add("--base-url", metavar="URL", help="the endpoint of the provider")
    help_ = "another argument of the backend; VALUE is JSON or text"
    add("--backend-kwarg", metavar="KEY=VALUE", action="append", default=[], help=help_)


def names_model(args: argparse.Namespace) -> bool:
    """Whether one of the options of `add_model` is given."""
    return bool(args.backend or args.model or args.base_url or args.backend_kwarg)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Declare the limits of a run."""
    add = parser.add_argument_group(
        "limits", "They hold for the run with all its sub-calls. Default: no limit."
    ).add_argument
    add("--max-budget", type=float, metavar="USD", help="US dollars; counts the calls whose price is known")
    add("--max-timeout", type=float, metavar="SECONDS", help="wall-clock time in seconds")
    add("--max-tokens", type=int, metavar="N", help="tokens, input and output together")
    add("--max-errors", type=int, metavar="N", help="consecutive cells that raise an exception")
    add("--max-calls", type=int, metavar="N", help="prompts of sub-calls; the run continues without further ones")


def limits(args: argparse.Namespace) -> dict[str, Any]:
    """The given limits, as arguments of an `RLM`."""
    names = ("max_budget", "max_timeout", "max_tokens", "max_errors", "max_calls")
    given = {name: getattr(args, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}


def add_mcp(parser: argparse.ArgumentParser) -> None:
    """Declare the options of MCP servers."""
    add = parser.add_argument_group("tools").add_argument
    help_ = "an MCP server: a configuration file (mcpServers), a URL, or a command, perhaps as NAME=COMMAND"
    add("--mcp", metavar="SERVER", action="append", default=[], help=help_)
    add("--yes", action="store_true", help="let the tools of MCP servers change things without a question")


def mcp_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The servers and what they may do, as arguments of an `RLM`.

    Raises:
        ConfigError: a server is none.
    """
    if not args.mcp:
        return {}
    from rlm_kernel.mcp.config import servers_named

    return {"custom_tools": servers_named(args.mcp), "approve": True if args.yes else None}


def warn_of_unread_stdin() -> None:
    """Say on stderr that stdin is not read, if something was piped in."""
    if _holds_something(sys.stdin):
        terminal.print_note("rlm: stdin is not read; use --context - to read it")


def _holds_something(stream: TextIO | None) -> bool:
    """Whether a stream is a file or a pipe that holds something. Does not wait for the writer of a pipe."""
    try:
        file = os.fstat(stream.fileno()) if stream is not None else None
    except (OSError, ValueError):
        return False  # closed, or not of the system
    if file is None or stat.S_ISREG(file.st_mode):
        return file is not None and file.st_size > 0
    return stat.S_ISFIFO(file.st_mode) and stream is not None and _bytes_waiting(stream.fileno()) > 0


def _bytes_waiting(pipe: int) -> int:
    if sys.platform == "win32":
        return 0
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
