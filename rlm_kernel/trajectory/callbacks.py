"""The reference's callbacks, called from the stream of events."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel.trajectory import events

PREVIEW_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Callbacks:
    """A reader of the events of one run. Called in the engine's event loop, so a callback must not block.

    What a callback raises is reported once for each callback, as a `RuntimeWarning`; it is called again.

    Attributes:
        depth: of the RLM they belong to; children are one deeper.
        on_iteration_start: `(depth, iteration)`.
        on_iteration_complete: `(depth, iteration, seconds)`.
        on_subcall_start: `(depth, model, the first 80 characters of the prompt)`, for each child; `depth` is its own.
        on_subcall_complete: `(depth, model, seconds, error or None)`, for each child.
    """

    depth: int = 0
    on_iteration_start: Callable[[int, int], object] | None = None
    on_iteration_complete: Callable[[int, int, float], object] | None = None
    on_subcall_start: Callable[[int, str, str], object] | None = None
    on_subcall_complete: Callable[[int, str, float, str | None], object] | None = None
    _children: set[tuple[Hashable, ...]] = field(default_factory=set, init=False, repr=False)
    _failed: set[str] = field(default_factory=set, init=False, repr=False)

    def __call__(self, event: events.Event) -> None:
        """Call what is set for this kind of event, for those of children too."""
        depth = self.depth
        path: tuple[Hashable, ...] = ()
        while isinstance(event, events.ChildEvent):
            depth, path, event = depth + 1, (*path, event.cell, event.query, event.index), event.event
        match event:
            case events.IterationStarted():
                self._call("on_iteration_start", depth, event.iteration)
            case events.IterationFinished():
                self._call("on_iteration_complete", depth, event.iteration, event.seconds)
            case events.RunStarted(context=str(prompt)) if path:
                self._children.add(path)
                self._call("on_subcall_start", depth, event.model, prompt[:PREVIEW_CHARACTERS])
            case events.SubcallAnswered() if (child := (*path, event.cell, event.query, event.index)) in self._children:
                self._children.remove(child)
                self._call("on_subcall_complete", depth + 1, event.model, event.seconds, event.error)

    def _call(self, name: str, *arguments: Any) -> None:
        """Call one callback, if it is set."""
        if (callback := getattr(self, name)) is None:
            return
        try:
            callback(*arguments)
        except Exception as error:  # noqa: BLE001 (a callback that raises must not end the run)
            if name not in self._failed:
                self._failed.add(name)
                with contextlib.suppress(RuntimeWarning):  # where warnings are errors
                    warnings.warn(
                        f"{name} raised {error!r}. The run goes on and calls it again; this is reported once.",
                        RuntimeWarning,
                        stacklevel=2,
                    )

    @property
    def any(self) -> bool:
        """Whether there is something to call."""
        return bool(
            self.on_iteration_start or self.on_iteration_complete or self.on_subcall_start or self.on_subcall_complete
        )
