"""The states of a run: one name each, in the notebook, the viewer, the lists, the terminal and the widget.

``running``: in progress. ``answered``. ``stopped``: cancelled by the user. ``limit``: a limit of the run was reached.
``failed``: any other error. ``lost``: the log has no end, and nothing was written to it for a while: the process died.
"""

from __future__ import annotations

import time
from asyncio import CancelledError
from functools import cache
from typing import Literal, get_args

from rlm_kernel.errors import CancellationError, LimitError

State = Literal["running", "answered", "stopped", "limit", "failed", "lost"]
STATES: tuple[State, ...] = get_args(State)

FRESH_SECONDS = 600.0
"""A log without an end that changed this recently belongs to a run in progress: a model may take minutes."""

_STOPS = (CancelledError, KeyboardInterrupt, CancellationError)


def state_of_error(error: BaseException) -> State:
    """How a run ended that ended with an error: ``stopped``, ``limit`` or ``failed``."""
    if isinstance(error, _STOPS):
        return "stopped"
    return "limit" if isinstance(error, LimitError) else "failed"


def state_without_end(modified: float, now: float | None = None) -> State:
    """The state of a run whose log has no end: ``running`` or ``lost``.

    Args:
        modified: when the log was last written to, in seconds since 1970.
        now: the time; None: the current one.
    """
    return "running" if (time.time() if now is None else now) - modified < FRESH_SECONDS else "lost"


def ending_of(error: BaseException) -> str:
    """How a run ended, for a person: ``Stopped``, ``Limit (BudgetExceededError)``, ``Failed (LMError)``."""
    return describe_ending(state_of_error(error), type(error).__name__)


def describe_ending(state: State, kind: str) -> str:
    """`ending_of` for a state and the name of the error."""
    return state.capitalize() if state == "stopped" else f"{state.capitalize()} ({kind})"


def state_of_error_name(name: str) -> State:
    """`state_of_error` for the name of a class, as a log has it."""
    return states_of_error_names().get(name, "failed")


@cache
def states_of_error_names() -> dict[str, State]:
    """The states of errors by the name of the class. An error that is not listed is ``failed``."""
    kinds: list[type[BaseException]] = [*_STOPS, *_kinds_of(LimitError)]
    return {kind.__name__: "limit" if issubclass(kind, LimitError) else "stopped" for kind in kinds}


def _kinds_of(kind: type[LimitError]) -> list[type[LimitError]]:
    """The class and those of this library that derive from it."""
    below = [found for one in kind.__subclasses__() for found in _kinds_of(one)]
    return [one for one in (kind, *below) if one.__module__ == LimitError.__module__]
