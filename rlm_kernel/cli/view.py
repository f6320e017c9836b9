"""`rlm view`: recorded runs and runs under way, in the browser."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_kernel import terminal
from rlm_kernel.cli import exits
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

NAME = "view"
HELP = "show recorded runs in the browser"
DESCRIPTION = """\
Show runs in the browser: turns, code with outputs and pictures, sub-calls, children, tokens and cost. A run under way
is followed. PATH is a folder of logs or one log (default: ./rlm_logs, else ./logs). Nothing leaves this machine.

With --export the run is written to a single page that needs no server.
"""
PORT = 3001


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("path", nargs="?", metavar="PATH", help="a folder of logs, a log (.jsonl) or its notebook")
    parser.add_argument("--port", type=int, default=PORT, help=f"on loopback (default: {PORT}; 0: any that is free)")
    parser.add_argument("--no-browser", action="store_true", help="print the address and open nothing")
    parser.add_argument("--export", metavar="FILE.html", help="write one log as a page of its own")


def execute(args: Namespace) -> int:
    """Serve until Ctrl-C, or write the page and print its path.

    Raises:
        ConfigError, RecordingError: there is nothing to show at the path, or the port is taken.
    """
    from rlm_kernel.viewer.folder import folder_of

    if args.export is not None:
        return _export(args)
    from rlm_kernel.viewer.server import ViewerServer

    folder = folder_of(args.path)
    with ViewerServer(folder, args.port) as server, suppress(KeyboardInterrupt):
        url = f"{server.url}#{folder.only}" if folder.only else server.url
        terminal.result(url)
        terminal.note(f"rlm: this page shows {folder.path.resolve()}; Ctrl-C ends it")
        if not args.no_browser:
            _open(url)
        threading.Event().wait()
    return exits.OK


def _export(args: Namespace) -> int:
    from rlm_kernel.trajectory.log.recording import log_of
    from rlm_kernel.viewer.pages import export

    if args.path is None or Path(args.path).is_dir():
        raise ConfigError("--export writes one run: name its log, `rlm view --export FILE.html LOG.jsonl`.")
    log, output = log_of(Path(args.path)), Path(args.export)
    if output.suffix not in (".html", ".htm"):
        raise ConfigError(f"--export takes a file that ends with .html, not {args.export!r}.")
    export(log, output)
    terminal.result(str(output))
    return exits.OK


def _open(url: str) -> None:
    """Open the browser of the desktop. Without a desktop Python would find a browser for terminals, and wait for it."""
    import webbrowser

    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(url)
