"""A terminal that several runs may draw on at the same time.

Finished blocks scroll and never mix; the status of at most one run moves at the bottom. A refresh thread draws the
newest status; a run only stores it.
"""

from __future__ import annotations

import contextlib
import functools
from threading import Event, RLock, Thread
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.errors import LiveError
from rich.live import Live

from rlm_kernel.untrusted.plain_console import PlainConsole

if TYPE_CHECKING:
    from collections.abc import Iterator

_REFRESHES_PER_SECOND = 8


class Screen:
    """A console for finished blocks and one moving part.

    Args:
        console: where to draw.
        live: whether there may be a moving part; by default only on a real terminal that can move its cursor.
    """

    def __init__(self, console: Console, *, live: bool | None = None) -> None:
        self.console = console
        self._live = live
        self.views = 0
        self._lock = RLock()
        self._moving: _Moving | None = None

    def print(self, *blocks: RenderableType) -> None:
        """Draw blocks that stay, above the moving part."""
        with _drawing(self.console, self._lock):
            self.console.print(Group(*blocks))

    def keep_still(self) -> None:
        """Have no moving part from now on: somebody types on this terminal."""
        self._live = False

    def join(self) -> int:
        """Count one more view. Returns how many there are now."""
        with self._lock:
            self.views += 1
            return self.views

    def leave(self) -> None:
        """Count one view less."""
        with self._lock:
            self.views -= 1

    def claim(self) -> bool:
        """Take the moving part, if this screen can have one and it is free. Returns whether it was taken."""
        with self._lock:
            if not self._can_move or self._moving is not None:
                return False
            self._moving = _Moving.started(self.console, self._lock)
            return self._moving is not None

    @property
    def _can_move(self) -> bool:
        if self._live is not None:
            return self._live
        # With FORCE_COLOR Rich takes a pipe for a terminal; colours may go there, but no cursor movements.
        return self.console.is_interactive and self.console.file.isatty()

    def move(self, status: RenderableType) -> None:
        """Show this status from the next refresh on. For the view that holds the moving part."""
        if self._moving is not None:
            self._moving.status = status

    def release(self) -> None:
        """Give the moving part back and remove it from the screen."""
        moving, self._moving = self._moving, None
        if moving is not None:
            moving.stop()


class _Moving:
    """The live region and the thread that refreshes it."""

    def __init__(self, console: Console, lock: RLock) -> None:
        self.status: RenderableType = ""
        # Streams of the host program are not redirected. Rich's own refresh thread would not use our lock.
        self.live = Live(
            console=console,
            get_renderable=lambda: self.status,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._lock = lock
        self._over = Event()
        self._thread = Thread(target=self._refresh, name="rlm-console", daemon=True)

    @classmethod
    def started(cls, console: Console, lock: RLock) -> _Moving | None:
        moving = cls(console, lock)
        try:
            moving.live.start()
        except LiveError:
            return None  # Rich before 14.1 allows one live region per console, and the caller has it.
        except OSError:
            return None  # The terminal has gone.
        moving._thread.start()
        return moving

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        with _drawing(self.live.console, self._lock):
            self.live.stop()

    def _refresh(self) -> None:
        while not self._over.wait(1 / _REFRESHES_PER_SECOND):
            with _drawing(self.live.console, self._lock):
                self.live.refresh()


@contextlib.contextmanager
def _drawing(console: Console, lock: RLock) -> Iterator[None]:
    with lock:
        try:
            yield
        except OSError:
            console.quiet = True  # The terminal has gone; the run continues without a view.


class _Console(PlainConsole):
    def on_broken_pipe(self) -> None:
        self.quiet = True  # Rich would end the process.


@functools.cache
def standard_error() -> Screen:
    """The screen that all views of this process share."""
    return Screen(_Console(stderr=True, force_jupyter=False))
