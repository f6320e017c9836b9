"""The viewer as a widget (anywidget): the same component, whose log is read by the notebook's kernel.

The log travels in pieces when the page asks for them, so a saved notebook does not hold it, and a run in progress is
followed. Without a widget (exports, untrusted notebooks) folded text is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import anywidget
import traitlets

from rlm_kernel.html.markup import render
from rlm_kernel.viewer import component
from rlm_kernel.viewer.fallback import folded_html
from rlm_kernel.viewer.log_source import LogInMemory, LogOnDisk
from rlm_kernel.viewer.words import drawn

_PIECE = 4 << 20


class RunWidget(anywidget.AnyWidget):
    """A run in a notebook, or two side by side.

    Args:
        logs: of the run, or of both.
        height: in pixels.
        children: for each log, the steps to the child that is shown; by default the run itself.
    """

    _esm = component.script("widget")
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    children = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)
    height = traitlets.Int().tag(sync=True)

    def __init__(
        self, logs: Sequence[LogOnDisk | LogInMemory], height: int, children: Sequence[Sequence[str]] | None = None
    ) -> None:
        steps = [list(one) for one in children or [()] * len(logs)]
        super().__init__(names=[log.name for log in logs], children=steps, height=height)
        self._logs = logs
        self.on_msg(self._answer)

    def _answer(self, _: Any, request: Any, __: Any) -> None:
        match request:
            case {"from": int(offset), "log": int(place)} if offset >= 0 and 0 <= place < len(self._logs):
                self._send_bytes(offset, place)
            case {"words": list(texts), "number": int(number)}:
                with suppress(ValueError):
                    self.send({"number": number, "drawn": drawn(texts)})

    def _send_bytes(self, offset: int, place: int) -> None:
        """Send the bytes from an offset on; the page asks again until none come."""
        log = self._logs[place]
        try:
            piece, error, fresh = log.read(offset, _PIECE), None, log.fresh
        except OSError as problem:
            piece, error, fresh = b"", str(problem), False
        self.send({"from": offset, "log": place, "fresh": fresh, "grows": log.grows, "error": error}, [piece])

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget, and the run as folded text for front ends without widgets."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        return {
            **data,
            "text/html": render([folded_html(log) for log in self._logs]),
            "text/plain": f"The run {' and the run '.join(self.names)}",
        }, metadata
