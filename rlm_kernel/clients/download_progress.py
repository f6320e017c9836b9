"""How a long download tells a person about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType


class Progress(Protocol):
    """What a download reports. Called in the thread that downloads; must not block."""

    def bytes(self, done: int, total: int) -> None:
        """So many bytes of the whole are on the disk. `done` may go back when a source is given up."""
        ...

    def note(self, line: str) -> None:
        """One sentence for the person who waits."""
        ...


class DownloadBar:
    """A `Progress` that draws a bar on stderr with Rich. Nothing is drawn before something is said.

        with DownloadBar("qwen2.5-coder-1.5b-instruct") as bar:
            ensure(QWEN_CODER, bar)

    Args:
        title: what stands beside the bar.
    """

    def __init__(self, title: str) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        from rlm_kernel.plain_console import PlainConsole

        console = PlainConsole(stderr=True)
        columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        # A pipe or a log gets the notes only.
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._console = console
        self._task = self._bar.add_task(title, total=None)
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def bytes(self, done: int, total: int) -> None:
        """Move the bar."""
        if not self._drawn:
            self._drawn = True
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total)

    def note(self, line: str) -> None:
        """Print the sentence above the bar."""
        self._console.print(line, soft_wrap=True)
