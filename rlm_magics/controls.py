"""Stop as a widget, in addition to the static view, where ipywidgets is installed and clicks are received.

It is removed when the run ends: a notebook that is opened again has no model of a widget.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

WIDGET = "application/vnd.jupyter.widget-view+json"
INSTEAD = "To stop the run, interrupt the kernel."


def can_be_clicked(kernel: Any) -> bool:
    """Whether clicks are handled while a cell runs: in a subshell, which ipykernel has since version 7."""
    return find_spec("ipywidgets") is not None and bool(getattr(kernel, "_supports_kernel_subshells", False))


class Controls:
    """The button that stops a run.

    Args:
        on_stop: called in a thread of its own when Stop is clicked.
    """

    def __init__(self, on_stop: Callable[[], object]) -> None:
        import ipywidgets

        tooltip = "Stop the run and keep the answer so far."
        self._stop = ipywidgets.Button(description="Stop", icon="stop", tooltip=tooltip, layout={"width": "100px"})
        self._stop.on_click(lambda _: self._stopped(on_stop))
        _handle_while_busy(self._stop.comm)
        self._handle: Any = None

    def show(self) -> None:
        """Display it; a front end without widgets says how to stop instead."""
        from IPython.display import display

        widget = {"model_id": self._stop.model_id, "version_major": 2, "version_minor": 0}
        self._handle = display({WIDGET: widget, "text/plain": INSTEAD}, raw=True, display_id=True)

    def close(self) -> None:
        """Remove it."""
        if self._handle is not None:
            self._handle.update({"text/html": "", "text/plain": ""}, raw=True)
        for part in (self._stop.layout, self._stop.style, self._stop):
            part.close()

    def _stopped(self, on_stop: Callable[[], object]) -> None:
        self._stop.disabled, self._stop.description = True, "Stopping…"
        on_stop()


def _handle_while_busy(comm: Any) -> None:
    """Ipykernel 7.4.0 routes messages of a comm to the shell that last wrote to it, which is busy."""
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _, default: default  # noqa: SLF001 (there is no public way)
