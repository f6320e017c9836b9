"""Every error this library raises on purpose, as one tree.

    RLMError
    ├─ ConfigError                  a wrong argument, found before anything starts (also a ValueError)
    ├─ LimitError                   a limit of the run was reached
    │   ├─ BudgetExceededError  TimeoutExceededError
    │   └─ TokenLimitExceededError  ErrorThresholdExceededError
    ├─ CancellationError            the run was stopped by Ctrl-C
    ├─ LMError                      a model provider failed
    └─ KernelError                  the kernel did not start, or died

What the model can repair is data, never an exception: a cell that raised is a `CellResult` with a traceback.
"""

from __future__ import annotations

from typing import Any


class RLMError(Exception):
    """The root of the tree: `except RLMError` catches all of it."""


class ConfigError(RLMError, ValueError):
    """A wrong backend, environment or option. The message names what is allowed and what to do."""


class LimitError(RLMError):
    """A limit of the run was reached.

    Attributes:
        partial_answer: the best answer so far, or None.
        usage: the `UsageSummary` of the run until then, or None.
        trajectory: the record of the run until then, or None when nothing was logged.
    """

    def __init__(
        self, message: str, *, partial_answer: str | None = None, usage: Any = None, trajectory: Any = None
    ) -> None:
        super().__init__(message)
        self.partial_answer = partial_answer
        self.usage = usage
        self.trajectory = trajectory


class BudgetExceededError(LimitError):
    """The run cost more than `max_budget` US dollars."""


class TimeoutExceededError(LimitError):
    """The run took longer than `max_timeout` seconds."""


class TokenLimitExceededError(LimitError):
    """The run used more than `max_tokens` input and output tokens."""


class ErrorThresholdExceededError(LimitError):
    """More than `max_errors` cells in a row raised."""


class CancellationError(RLMError):
    """Ctrl-C during a synchronous call.

    Attributes:
        partial_answer: the best answer so far, or None.
    """

    def __init__(self, message: str, *, partial_answer: str | None = None) -> None:
        super().__init__(message)
        self.partial_answer = partial_answer


class LMError(RLMError):
    """A model provider refused, failed or could not be reached.

    Attributes:
        backend: the name of the backend, e.g. ``"openai"``.
        model: the model that was asked.
        status: the HTTP status, or None when there was no response.
        request_id: the provider's id of the request, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        backend: str,
        model: str,
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.backend = backend
        self.model = model
        self.status = status
        self.request_id = request_id


class KernelError(RLMError):
    """The kernel did not start, died and could not be restored, or broke the protocol."""
