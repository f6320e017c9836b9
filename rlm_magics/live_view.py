"""The view of a run in progress: in the notebook, in the terminal, or none.

A view gets events in the engine's thread. It is drawn in the thread of the cell, which waits for the run.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Self

from rlm_magics import controls, page
from rlm_magics.insertion import CELLS
from rlm_magics.progress import MAX_TURNS, Progress

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
        link: returns a link to the notebook of the run, or None.
    """

    def __init__(self) -> None:
        self.progress = Progress()
        self.link: Callable[[], Element | None] = lambda: None
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

    def finish(self, link: Element | None, log: str | None = None) -> None:
        """Show how it ended.

        Args:
            link: to the notebook of the run, or None.
            log: of the run if it has an answer, else None.
        """


class NotebookView(View):
    """A view that every front end of Jupyter shows. Each piece of it is an output, which changes only if it has to.

    Args:
        kernel: the kernel of the notebook.
        verbose: whether all turns stay unfolded.
        notes: warnings for the user.
    """

    def __init__(self, kernel: Any, *, verbose: bool = False, notes: Iterable[str] = ()) -> None:
        super().__init__()
        self._verbose = verbose
        self._notes = tuple(notes)
        self._controls = controls.Controls(self.stop) if controls.can_be_clicked(kernel) else None
        self._shown: list[tuple[Any, page.Piece]] = []
        self._turns: dict[int, page.Piece] = {}
        self._settled: set[int] = set()
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self._show([page.head(self.progress, self._notes)])
        if self._controls is not None:
            self._controls.show()
        return self

    def __exit__(self, *_: object) -> None:
        if self._controls is not None:
            self._controls.close()

    def draw(self) -> None:
        """Draw what is new."""
        if not self.progress.changed and time.monotonic() < self._drawn + CLOCK_SECONDS:
            return
        self.progress.changed, self._drawn = False, time.monotonic()
        self._show(self._pieces(self.link()))

    def finish(self, link: Element | None, log: str | None = None) -> None:
        """Draw the final view, which stays in the notebook. Our JupyterLab extension shows a button below it."""
        from IPython.display import display

        self._show(self._pieces(link))
        if log is not None:
            bundle = {CELLS: {"log": os.path.relpath(log)}, "text/html": "", "text/plain": ""}
            display(bundle, raw=True, display_id=True)

    def _pieces(self, link: Element | None) -> list[page.Piece]:
        with self.progress.lock:
            self._take_turns()
            turns = list(self._turns.values())
            if (hidden := len(turns) - MAX_TURNS) > 0:
                turns[:hidden] = [*[page.Piece((), "")] * (hidden - 1), page.left_out(hidden)]
            return [page.head(self.progress, self._notes), *turns, page.status(self.progress, link)]

    def _take_turns(self) -> None:
        """The turns as pieces. One is unfolded until the next has a reply; then it is never drawn again."""
        replied = [turn for turn in self.progress.run.turns if turn.reply is not None]
        for turn in replied:
            if turn.iteration not in self._settled:
                is_last = turn is replied[-1]
                self._turns[turn.iteration] = page.turn_of(turn, unfolded=self._verbose or is_last)
                if turn.is_over and not is_last:
                    self._settled.add(turn.iteration)

    def _show(self, pieces: Iterable[page.Piece]) -> None:
        from IPython.display import display

        for place, piece in enumerate(pieces):
            if place == len(self._shown):
                self._shown.append((display(_bundle(piece), raw=True, display_id=True), piece))
            elif piece != self._shown[place][1]:
                self._shown[place][0].update(_bundle(piece), raw=True)
                self._shown[place] = self._shown[place][0], piece


def _bundle(piece: page.Piece) -> dict[str, str]:
    return {"text/html": piece.html(), "text/plain": piece.words}


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
