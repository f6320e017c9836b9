"""The viewer as a widget (anywidget): the same component, whose log is read by the notebook's kernel.

The log travels in pieces when the page asks for them, so a saved notebook does not hold it, and a run in progress is
followed. Without a widget (exports, untrusted notebooks) folded text is shown.
"""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from rlm_kernel.viewer import component
from rlm_kernel.viewer.fallback import folded_html
from rlm_kernel.viewer.log_source import LogInMemory, LogOnDisk

_PIECE = 4 << 20


class RunWidget(anywidget.AnyWidget):
    """A run in a notebook.

    Args:
        log: of the run.
        height: in pixels.
    """

    _esm = component.script("widget")
    name = traitlets.Unicode().tag(sync=True)
    height = traitlets.Int().tag(sync=True)

    def __init__(self, log: LogOnDisk | LogInMemory, height: int) -> None:
        super().__init__(name=log.name, height=height)
        self._log = log
        self.on_msg(self._send_bytes)

    def _send_bytes(self, _: Any, request: Any, __: Any) -> None:
        """Send the bytes from an offset on; the page asks again until none come."""
        offset = request.get("from") if isinstance(request, dict) else None
        if not isinstance(offset, int) or offset < 0:
            return
        try:
            piece, error, fresh = self._log.read(offset, _PIECE), None, self._log.fresh
        except OSError as problem:
            piece, error, fresh = b"", str(problem), False
        self.send({"from": offset, "fresh": fresh, "grows": self._log.grows, "error": error}, [piece])

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget, and the run as folded text for front ends without widgets."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        return {**data, "text/html": folded_html(self._log), "text/plain": f"The run {self._log.name}"}, metadata
