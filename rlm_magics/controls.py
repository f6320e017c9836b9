"""Stop and folding as widgets, on top of the static view, where ipywidgets is installed and clicks are received.

Everything that the widgets show is in the static view too, and they are removed when the run ends: a notebook that is
opened again has no model of a widget.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

WIDGET = "application/vnd.jupyter.widget-view+json"
INSTEAD = "To stop the run, interrupt the kernel."

OnFold = Callable[[str, bool], object]


def can_be_clicked(kernel: Any) -> bool:
    """Whether clicks are handled while a cell runs: in a subshell, which ipykernel has since version 7."""
    return find_spec("ipywidgets") is not None and bool(getattr(kernel, "_supports_kernel_subshells", False))


class Controls:
    """A row of buttons below the view.

    Args:
        on_stop: called in a thread of its own when Stop is clicked.
        on_fold: called there with a part of the view and whether it is to be open.
    """

    def __init__(self, on_stop: Callable[[], object], on_fold: OnFold) -> None:
        import ipywidgets

        tooltip = "Stop the run and keep the answer so far."
        self._stop = ipywidgets.Button(description="Stop", icon="stop", tooltip=tooltip, layout={"width": "100px"})
        self._stop.on_click(lambda _: self._stopped(on_stop))
        self._folds = [
            self._fold(ipywidgets, description, part, on_fold)
            for description, part in (("Turns", "turns"), ("Cells", "each"), ("Sub-calls", "calls"))
        ]
        self._box = ipywidgets.HBox([self._stop, *self._folds])
        for widget in (self._stop, *self._folds):
            _handle_while_busy(widget.comm)
        self._handle: Any = None

    def show(self) -> None:
        """Display the row; a front end without widgets says how to stop instead."""
        from IPython.display import display

        widget = {"model_id": self._box.model_id, "version_major": 2, "version_minor": 0}
        self._handle = display({WIDGET: widget, "text/plain": INSTEAD}, raw=True, display_id=True)

    def close(self) -> None:
        """Remove the row."""
        if self._handle is not None:
            self._handle.update({"text/html": "", "text/plain": ""}, raw=True)
        for widget in (*self._folds, self._stop, self._box):
            for part in (widget.layout, getattr(widget, "style", None), widget):
                if part is not None:
                    part.close()

    def _stopped(self, on_stop: Callable[[], object]) -> None:
        self._stop.disabled, self._stop.description = True, "Stopping…"
        on_stop()

    def _fold(self, ipywidgets: Any, description: str, part: str, on_fold: OnFold) -> Any:
        button = ipywidgets.ToggleButton(description=description, layout={"width": "auto"})
        button.observe(lambda change: on_fold(part, bool(change["new"])), "value")
        return button


def _handle_while_busy(comm: Any) -> None:
    """Ipykernel 7.4.0 routes messages of a comm to the shell that last wrote to it, which is busy."""
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _, default: default  # noqa: SLF001 (there is no public way)
