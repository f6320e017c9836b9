"""Who asks for an agent gets one: other environments are refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from rlm_kernel.engine.agent_tools import AGENT
from rlm_kernel.errors import RLMEnforcementError

P = ParamSpec("P")
T = TypeVar("T")


def check_environment(environment: object, user: str) -> None:
    """Check that an environment is that of agents.

    Raises:
        RLMEnforcementError: it is not; the message says what to write instead.
    """
    if environment != AGENT:
        raise RLMEnforcementError(
            f"{user} needs environment='agent', not {environment!r}: name the place of its kernel with "
            f"environment_kwargs={{'place': {environment!r}}}."
        )


def require_agent_environment(function: Callable[P, T]) -> Callable[P, T]:
    """A decorator: the function refuses an argument `environment` that is not ``"agent"``.

    Raises:
        RLMEnforcementError: from the function.
    """

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        check_environment(kwargs.get("environment", AGENT), function.__name__)
        return function(*args, **kwargs)

    return checked
