"""The reference's callbacks, called from the stream of events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlm_kernel.trajectory import events

PREVIEW_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Callbacks:
    """A reader of events. Called in the engine's event loop, so a callback must not block.

    Attributes:
        depth: of the RLM they belong to; children are one deeper.
        on_iteration_start: `(depth, iteration)`.
        on_iteration_complete: `(depth, iteration, seconds)`.
        on_subcall_start: `(depth, model, the first 80 characters of the prompt)`, for each prompt.
        on_subcall_complete: `(depth, model, seconds, error or None)`, for each prompt.
    """

    depth: int = 0
    on_iteration_start: Callable[[int, int], object] | None = None
    on_iteration_complete: Callable[[int, int, float], object] | None = None
    on_subcall_start: Callable[[int, str, str], object] | None = None
    on_subcall_complete: Callable[[int, str, float, str | None], object] | None = None

    def __call__(self, event: events.Event) -> None:
        """Call what is set for this kind of event, for those of children too."""
        depth = self.depth
        while isinstance(event, events.ChildEvent):
            event, depth = event.event, depth + 1
        match event:
            case events.IterationStarted() if self.on_iteration_start:
                self.on_iteration_start(depth, event.iteration)
            case events.IterationFinished() if self.on_iteration_complete:
                self.on_iteration_complete(depth, event.iteration, event.seconds)
            case events.SubcallStarted() if self.on_subcall_start:
                for prompt in event.prompts:
                    self.on_subcall_start(depth, event.model, prompt[:PREVIEW_CHARACTERS])
            case events.SubcallAnswered() if self.on_subcall_complete:
                self.on_subcall_complete(depth, event.model, event.seconds, event.error)

    @property
    def any(self) -> bool:
        """Whether there is something to call."""
        return bool(
            self.on_iteration_start or self.on_iteration_complete or self.on_subcall_start or self.on_subcall_complete
        )
