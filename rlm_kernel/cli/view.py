"""Show recorded runs in the browser.

The page shows turns, code, outputs and pictures, sub-calls, child runs, tokens and cost. It
updates while a run is in progress. Nothing is sent to another machine. PATH is a folder of logs
or one log (default: ./rlm_logs, or ./logs if that does not exist).

The server listens on this machine only, but every user of the machine can connect to it. So the
address holds a token: anyone who has the address can read the logs.

With --export, the run is written to one HTML file that needs no server.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_kernel import terminal
from rlm_kernel.cli import exit_codes
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rlm_kernel.viewer.folder import Folder

NAME = "view"

PORT = 3001


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("path", nargs="?", metavar="PATH", help="a folder of logs, a log (.jsonl) or its notebook")
    add_server_arguments(parser, PORT)
    parser.add_argument("--export", metavar="FILE.html", help="write one log as an HTML file")


def add_server_arguments(parser: ArgumentParser, port: int) -> None:
    """Declare what a command that serves the page takes."""
    known = f"default: {port}; 0: any free port" if port else "default: any free port"
    parser.add_argument("--port", type=int, default=port, help=f"the port, on 127.0.0.1 ({known})")
    parser.add_argument("--no-browser", action="store_true", help="print the address, and do not open a browser")
    parser.add_argument("--no-token", action="store_true", help="let every user of this machine read the logs")


def execute(args: Namespace) -> int:
    """Serve until Ctrl-C, or write the page and print its path.

    Raises:
        ConfigError, RecordingError: there is nothing to show at the path, or the port is taken.
    """
    from rlm_kernel.viewer.folder import folder_of

    if args.export is not None:
        return _export(args)
    folder = folder_of(args.path)
    return serve(args, folder, f"this page shows {folder.path.resolve()}")


def serve(args: Namespace, folder: Folder, what: str) -> int:
    """Serve some logs until Ctrl-C.

    Args:
        args: those of `add_server_arguments`.
        folder: the logs.
        what: the page shows, for the person at the terminal.
    """
    from rlm_kernel.viewer.access import Access
    from rlm_kernel.viewer.server import ViewerServer

    access = Access() if args.no_token else Access.by_token()
    with suppress(KeyboardInterrupt), ViewerServer(folder, args.port, access) as server, ExitStack() as stack:
        terminal.print_result(server.url)
        if args.no_token:
            terminal.print_note("rlm: --no-token: every user and program of this machine can read these logs")
        terminal.print_note(f"rlm: {what}; press Ctrl-C to end it")
        if not args.no_browser and _has_desktop():
            stack.enter_context(_browser(server.url))
        threading.Event().wait()
    return exit_codes.OK


def _export(args: Namespace) -> int:
    from rlm_kernel.trajectory.log.reader import log_of
    from rlm_kernel.viewer.pages import export

    if args.path is None or Path(args.path).is_dir():
        raise ConfigError("--export writes one run: give its log, `rlm view --export FILE.html LOG.jsonl`.")
    log, output = log_of(Path(args.path)), Path(args.export)
    if output.suffix not in (".html", ".htm"):
        raise ConfigError(f"--export needs a file name that ends with .html, not {args.export!r}.")
    export(log, output)
    terminal.print_result(str(output))
    return exit_codes.OK


def _has_desktop() -> bool:
    """Whether there is a desktop. Without one, Python would open a text browser and wait for it."""
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform in ("darwin", "win32") or bool(named)


@contextmanager
def _browser(url: str) -> Iterator[None]:
    """Open an address in the browser through a file that only this user can read: `ps` shows command lines to all."""
    import webbrowser

    from jupyter_core.paths import jupyter_runtime_dir, secure_write

    from rlm_kernel.viewer.pages import opening

    file = Path(jupyter_runtime_dir()) / f"rlm-view-{secrets.token_hex(8)}.html"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with secure_write(str(file)) as opened:
            opened.write(opening(url))
        webbrowser.open(file.as_uri())
    except OSError as error:
        terminal.print_note(f"rlm: the browser could not be opened ({error}): open the address above")
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
