"""Every error this library raises on purpose, as one tree.

    RLMError
    ├─ ConfigError                  a wrong argument, found before anything starts (also a ValueError)
    ├─ LimitError                   a limit of the run was reached
    │   ├─ BudgetExceededError  TimeoutExceededError
    │   ├─ TokenLimitExceededError  ErrorThresholdExceededError
    │   ├─ AnswerSchemaError        all turns and repairs went by without an answer that fits the schema
    │   └─ NoAnswerError            all turns went by, and the last reply held no answer
    ├─ CancellationError            the run was stopped by Ctrl-C
    ├─ LMError                      a model provider failed
    │   └─ ContextOverflowError     the conversation is longer than the model's window
    ├─ KernelError                  the kernel did not start, or died
    └─ RecordingError               a log or notebook cannot be read, replayed or resumed

What the model can repair is data, never an exception: a cell that raised is a `CellResult` with a traceback.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from rlm_kernel.text import clip_end, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlm_kernel.types import Usage, UsageSummary

SHOWN_CHARACTERS = 200
"""Of a reply that an error quotes."""


GAVE_UP = frozenset({408, 502, 504, *range(520, 528)})
"""Statuses with which something before the model says that it waits no longer: the model may have answered."""


def refused(status: int | None) -> bool:
    """Whether an HTTP status says that the provider did not do the work, so that it charges nothing for it."""
    return status is not None and status >= 400 and status not in GAVE_UP  # noqa: PLR2004 (client and server errors)


def _unpickled(kind: type[RLMError], message: tuple[Any, ...]) -> RLMError:
    """An error whose `__init__` is not called again: what it was made of is not kept, what it says and holds is."""
    return kind.__new__(kind, *message)


class RLMError(Exception):
    """The root of the tree: `except RLMError` catches all of it. Each can be pickled, so it leaves a process pool."""

    def __str__(self) -> str:
        """The message, as text: it may quote a provider, a kernel or the name of a file, and Python prints it."""
        return plain(super().__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        """The class, the message and the attributes."""
        return _unpickled, (type(self), self.args), self.__dict__


class ConfigError(RLMError, ValueError):
    """A wrong backend, environment or option. The message names what is allowed and what to do."""


class LimitError(RLMError):
    """A limit of the run was reached. The engine fills in what is known of the run before the error leaves it.

    Attributes:
        partial_answer: the best answer so far, or None.
        usage: the `UsageSummary` of the run until then, or None.
        trajectory: the record of the run until then, or None when nothing was logged.
    """

    partial_answer: str | None = None
    usage: UsageSummary | None = None
    trajectory: dict[str, Any] | None = None


class BudgetExceededError(LimitError):
    """The run cost `max_budget` US dollars or more.

    Attributes: `spent`, `budget`; `estimated`, how much of `spent` nobody reported.
    """

    def __init__(self, *, spent: float, budget: float, estimated: float = 0.0) -> None:
        guessed = f", of which ${estimated:.6g} are an estimate" if estimated else ""
        super().__init__(
            f"The run cost ${spent:.6g}{guessed}, its limit is ${budget:.6g}: raise max_budget to go further."
        )
        self.spent = spent
        self.budget = budget
        self.estimated = estimated


class TimeoutExceededError(LimitError):
    """The run took `max_timeout` seconds. Attributes: `elapsed`, `timeout` (seconds)."""

    def __init__(self, *, elapsed: float, timeout: float) -> None:
        super().__init__(f"The run was ended after {elapsed:.1f} s, its limit is {timeout:g} s: raise max_timeout.")
        self.elapsed = elapsed
        self.timeout = timeout


class TokenLimitExceededError(LimitError):
    """The run used `max_tokens` tokens or more.

    Attributes: `tokens_used`, `token_limit`; `estimated`, how many of `tokens_used` nobody reported.
    """

    def __init__(self, *, tokens_used: int, token_limit: int, estimated: int = 0) -> None:
        guessed = f", of which {estimated:,} are an estimate" if estimated else ""
        super().__init__(
            f"The run used {tokens_used:,} tokens{guessed}, its limit is {token_limit:,}: raise max_tokens."
        )
        self.tokens_used = tokens_used
        self.token_limit = token_limit
        self.estimated = estimated


class ErrorThresholdExceededError(LimitError):
    """`max_errors` cells in a row raised. Attributes: `error_count`, `threshold`, `last_error` (its traceback)."""

    def __init__(self, *, error_count: int, threshold: int, last_error: str) -> None:
        super().__init__(f"{error_count} cells in a row raised, the limit is {threshold}. The last one:\n{last_error}")
        self.error_count = error_count
        self.threshold = threshold
        self.last_error = last_error


class AnswerSchemaError(LimitError):
    """No answer fitted the schema, in the turns of the run and two repairs after them.

    Attributes:
        problems: what is wrong with the last answer, a sentence each.
        reply: that answer, in the model's words; also the `partial_answer` when there is no better one.
    """

    def __init__(self, *, model: str, problems: Sequence[str], reply: str) -> None:
        begins = clip_end(reply, SHOWN_CHARACTERS)
        wrong = "; ".join(problem.rstrip(".") for problem in problems)
        super().__init__(
            f"The answer of {model} does not fit the schema: {wrong}. Its last reply: {begins!r}. "
            "Ask for less at a time, make the schema simpler or its descriptions clearer, or ask another model."
        )
        self.problems = tuple(problems)
        self.reply = self.partial_answer = reply


class NoAnswerError(LimitError):
    """All turns went by, and asked for its last word the model gave none: code, which nothing runs, or nothing.

    Attributes:
        reply: what it gave; the words around the code are the `partial_answer`.
    """

    def __init__(self, *, model: str, turns: int, reply: str, words: str = "") -> None:
        super().__init__(
            f"{model} gave no answer in {turns} turn{'s' * (turns != 1)}, and none when it was asked for its last "
            "word: raise max_iterations, or ask another model."
        )
        self.reply = reply
        self.partial_answer = words or None


class CancellationError(RLMError):
    """Ctrl-C during a synchronous call.

    Attributes:
        partial_answer: the best answer so far, or None.
        usage: the `UsageSummary` of the run until then, or None.
        trajectory: the record of the run until then, or None when nothing was logged.
    """

    usage: UsageSummary | None = None
    trajectory: dict[str, Any] | None = None

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
        requests: how many requests of the call may be charged for; 0 when none was sent, or each was refused.
        usage: what the provider says that the call used, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        backend: str,
        model: str,
        status: int | None = None,
        request_id: str | None = None,
        requests: int | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(message)
        self.backend = backend
        self.model = model
        self.status = status
        self.request_id = request_id
        self.requests = int(not refused(status)) if requests is None else requests
        self.usage = usage


class ContextOverflowError(LMError):
    """The conversation is longer than the model's context window, the provider says."""


class KernelError(RLMError):
    """The kernel did not start, died and could not be restored, or broke the protocol."""


class RecordingError(RLMError):
    """A log or its notebook cannot be read, replayed or resumed. The message says what is missing and where."""


def check_extra(user: str, module: str, extra: str) -> None:
    """See that an optional package is installed, without importing it.

    Args:
        user: what needs it, as the beginning of a sentence.
        module: its import name.
        extra: the extra of `rlm-kernel` that brings it.

    Raises:
        ConfigError: it is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:  # a folder of this name imports as a namespace package, without an origin
        raise ConfigError(f"{user} needs the extra {extra!r}: pip install 'rlm-kernel[{extra}]'.")
