"""The view of a run in progress: in the notebook, in the terminal, or none.

A view gets events in the engine's thread. It is drawn in the thread of the cell, which waits for the run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from rlm_magics import controls, page
from rlm_magics.progress import Progress

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from rlm_kernel.html.markup import Element
    from rlm_kernel.trajectory.events import Event

SECONDS = 0.2
"""Between two updates."""
CLOCK_SECONDS = 1.0
"""After this, the view is drawn again to update its clock."""


class View:
    """A view that draws nothing; base of the other views.

    Attributes:
        progress: the run so far.
    """

    def __init__(self) -> None:
        self.progress = Progress()
        self._wake = threading.Event()
        self._ended = self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to release."""

    def __call__(self, event: Event) -> None:
        """Take the next event."""
        self.progress(event)

    def wait(self) -> bool:
        """Wait until it is time to draw. Returns False when the run is over.

        Raises:
            KeyboardInterrupt: `stop` was called.
        """
        self._wake.wait(SECONDS)
        if self._stopped:
            raise KeyboardInterrupt
        if not self._ended:
            self._wake.clear()
        return not self._ended

    def end(self) -> None:
        """Mark the run as over. Called from any thread."""
        self._ended = True
        self._wake.set()

    def stop(self) -> None:
        """Ask to stop the run. Called from any thread."""
        self._stopped = True
        self._wake.set()

    def draw(self) -> None:
        """Draw the current state."""

    def finish(self, link: Element | None) -> None:
        """Show how it ended. `link`: to the notebook of the run, or None."""


class NotebookView(View):
    """A view that every front end of Jupyter shows.

    Args:
        kernel: the kernel of the notebook.
        verbose: whether all parts are unfolded.
        notes: warnings for the user.
    """

    def __init__(self, kernel: Any, *, verbose: bool = False, notes: Iterable[str] = ()) -> None:
        super().__init__()
        self._unfolded = {"turns", "each", "calls"} if verbose else set()
        self._verbose = verbose
        self._notes = tuple(notes)
        self._controls = controls.Controls(self.stop, self._fold) if controls.can_be_clicked(kernel) else None
        self._handle: Any = None
        self._drawn = 0.0

    def __enter__(self) -> Self:
        from IPython.display import display

        self._handle = display(self._bundle(), raw=True, display_id=True)
        if self._controls is not None:
            self._controls.show()
        return self

    def __exit__(self, *_: object) -> None:
        if self._controls is not None:
            self._controls.close()

    def draw(self) -> None:
        """Draw it, if there is something new."""
        if not self.progress.changed and time.monotonic() < self._drawn + CLOCK_SECONDS:
            return
        self.progress.changed, self._drawn = False, time.monotonic()
        self._handle.update(self._bundle(), raw=True)

    def finish(self, link: Element | None) -> None:
        """Draw the final view, which stays in the notebook."""
        if not self._verbose:
            self._unfolded.clear()
        self._handle.update(self._bundle(link), raw=True)

    def _bundle(self, link: Element | None = None) -> dict[str, str]:
        return {
            "text/html": page.page(self.progress, self._unfolded, self._notes, link),
            "text/plain": page.words(self.progress),
        }

    def _fold(self, part: str, unfolded: bool) -> None:
        self._unfolded = self._unfolded | {part} if unfolded else self._unfolded - {part}
        self.progress.changed = True
        self._wake.set()


class TerminalView(View):
    """The view of `rlm run`, for IPython in a terminal."""

    def __init__(self) -> None:
        from rlm_kernel.trajectory.console.live_display import ConsoleView

        super().__init__()
        self._console = ConsoleView()

    def __enter__(self) -> Self:
        self._console.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._console.__exit__(None, None, None)

    def __call__(self, event: Event) -> None:
        """Take the next event, and draw it."""
        super().__call__(event)
        self._console(event)


def view(shell: InteractiveShell, how: str, notes: Iterable[str]) -> View:
    """The view for a shell. `how`: ``live``, ``verbose`` or ``quiet``."""
    if how == "quiet":
        return View()
    kernel = getattr(shell, "kernel", None)
    return TerminalView() if kernel is None else NotebookView(kernel, verbose=how == "verbose", notes=notes)
