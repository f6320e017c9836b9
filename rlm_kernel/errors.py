"""The errors of this library, as one tree.

    RLMError
    ├─ ConfigError                  a wrong argument, found before anything starts (also a ValueError)
    ├─ LimitError                   a limit of the run was reached
    │   ├─ BudgetExceededError  TimeoutExceededError
    │   ├─ TokenLimitExceededError  ErrorThresholdExceededError
    │   ├─ TurnLimitExceededError   an agent has answered max_messages messages
    │   ├─ AnswerSchemaError        no answer fits the schema, after all turns and repairs
    │   ├─ AnswerCutError           the length limit of a reply cut an agent's answer
    │   └─ NoAnswerError            no answer after all turns, and the last reply holds none, either
    ├─ RLMEnforcementError          an agent would not be what it promises (also a ConfigError)
    ├─ CancellationError            the run was stopped by Ctrl-C
    ├─ LMError                      a model provider failed
    │   ├─ ContextOverflowError     the conversation is longer than the model's window
    │   └─ NonAnswerError           the reply is no answer: it was cut, withheld or refused, or has no text
    ├─ KernelError                  the kernel did not start, or died
    └─ RecordingError               a log or notebook cannot be read, replayed or resumed

Errors that the model can repair are data, not exceptions: a cell that raised is a `CellResult` with a traceback.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sysconfig
from traceback import extract_tb, format_list
from typing import TYPE_CHECKING, Any

from rlm_kernel.html import cards
from rlm_kernel.html.markup import Markup, Node
from rlm_kernel.html.prose import prose
from rlm_kernel.installation import install_command
from rlm_kernel.text import clip, clip_end, plain
from rlm_kernel.types import StoredTrajectory, UsageSummary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlm_kernel.types import Usage

SHOWN_CHARACTERS = 200
"""Limit of a quoted reply in an error, and of a message in a `repr`."""

MAX_MESSAGE = 20_000
"""Characters of a message that a notebook shows."""


GAVE_UP = frozenset({408, 502, 504, *range(520, 528)})
"""Statuses of time-outs between the client and the model: the model may have answered."""


def refused(status: int | None) -> bool:
    """Whether an HTTP status means that the provider did not process the request, so it charges nothing."""
    return status is not None and status >= 400 and status not in GAVE_UP  # noqa: PLR2004 (client and server errors)


_NOT_OF_USER = re.compile(
    r"[\\/](site-packages|dist-packages)[\\/]|<frozen |"
    + "|".join(re.escape(f"{folder}{os.sep}") for folder in (os.path.dirname(__file__), sysconfig.get_path("stdlib")))  # noqa: PTH120
)


def _lines_of_user(error: BaseException) -> list[str]:
    """The frames of an error's traceback outside of this package and of installed ones, as text."""
    frames = [one for one in extract_tb(error.__traceback__) if not _NOT_OF_USER.search(one.filename)]
    return [line.rstrip() for line in format_list(frames)]


def _unpickled(kind: type[RLMError], message: tuple[Any, ...]) -> RLMError:
    """An error made without `__init__`, whose arguments are not stored; message and attributes are."""
    return kind.__new__(kind, *message)


class RLMError(Exception):
    """The base class: `except RLMError` catches all of them. Each can be pickled, for process pools.

    Attributes:
        partial_answer: the best answer so far: the draft in `answer`, else the model's last words, or the words that a
            chat has sent; None: there is none.
        run_usage: the `UsageSummary` of the run that failed, sub-calls included; None: there was no run.
    """

    partial_answer: str | None = None
    run_usage: UsageSummary | None = None

    def __str__(self) -> str:
        """The message without control sequences: it may quote a provider, a kernel or a file name, and is printed."""
        return plain(super().__str__())

    def __repr__(self) -> str:
        """The class and the message, shortened."""
        return f"{type(self).__name__}({clip_end(str(self), SHOWN_CHARACTERS)!r})"

    def _repr_html_(self) -> Markup:
        """The message, the best answer so far and the usage of the run."""
        parts: list[Node] = [cards.title(type(self).__name__), cards.as_it_is(clip(str(self), MAX_MESSAGE))]
        if self.partial_answer:
            parts += [cards.title("The best answer so far"), prose(self.partial_answer)]
        spent = self.run_usage or getattr(self, "usage", None)
        if isinstance(spent, UsageSummary):
            parts += [cards.title("Usage", spent.facts), spent.table()]
        return cards.card(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        """The class, the message and the attributes."""
        return _unpickled, (type(self), self.args), self.__dict__

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the user's lines and the message. Our lines and those of an SDK are hundreds."""
        cause = self.__cause__
        before = [] if cause is None or not _lines_of_user(cause) else [*_lines_of_user(cause), repr(cause), ""]
        return [*before, *_lines_of_user(self), f"{type(self).__name__}: {self}"]


class ConfigError(RLMError, ValueError):
    """A wrong backend, environment or option. The message names what is allowed and what to do."""


class RLMEnforcementError(ConfigError):
    """An agent was asked for something that would not come out of a run of the engine. The message says what to do."""


class _Recorded:
    """An error that carries the record of its run."""

    usage: UsageSummary | None = None
    _trajectory: dict[str, Any] | StoredTrajectory | None = None

    @property
    def trajectory(self) -> dict[str, Any] | None:
        """The record of the run until the error. That of a long run is read from its log when it is used."""
        if isinstance(self._trajectory, StoredTrajectory):
            self._trajectory = self._trajectory.load()
        return self._trajectory

    @trajectory.setter
    def trajectory(self, record: dict[str, Any] | StoredTrajectory | None) -> None:
        self._trajectory = record


class LimitError(_Recorded, RLMError):
    """A limit of the run was reached. The engine sets the attributes.

    Attributes:
        partial_answer: the best answer so far, or None.
        usage: the `UsageSummary` of the run until then, or None.
        trajectory: the record of the run until then, or None without a logger.
    """


class BudgetExceededError(LimitError):
    """The run, or the batch, cost `max_budget` US dollars or more.

    Attributes: `spent`, `budget`; `estimated`, the part of `spent` that was not reported.
    """

    def __init__(
        self,
        spent: float,
        budget: float,
        message: str | None = None,
        *,
        estimated: float = 0.0,
        of_batch: bool = False,
    ) -> None:
        guessed = f", of which ${estimated:.6g} are an estimate" if estimated else ""
        what, way = ("batch", " of map, or --max-total-budget,") if of_batch else ("run", "")
        cost = f"The {what} cost ${spent:.6g}{guessed}, its limit is ${budget:.6g}"
        super().__init__(message or f"{cost}: raise max_budget{way} to go further.")
        self.spent = spent
        self.budget = budget
        self.estimated = estimated


class TimeoutExceededError(LimitError):
    """The run took `max_timeout` seconds. Attributes: `elapsed`, `timeout` (seconds)."""

    def __init__(
        self, elapsed: float, timeout: float, partial_answer: str | None = None, message: str | None = None
    ) -> None:
        super().__init__(
            message or f"The run was ended after {elapsed:.1f} s, its limit is {timeout:g} s: raise max_timeout."
        )
        self.elapsed = elapsed
        self.timeout = timeout
        self.partial_answer = partial_answer


class TokenLimitExceededError(LimitError):
    """The run, or the batch, used `max_tokens` tokens or more.

    Attributes: `tokens_used`, `token_limit`; `estimated`, the part of `tokens_used` that was not reported.
    """

    def __init__(
        self,
        tokens_used: int,
        token_limit: int,
        partial_answer: str | None = None,
        message: str | None = None,
        *,
        estimated: int = 0,
        of_batch: bool = False,
    ) -> None:
        guessed = f", of which {estimated:,} are an estimate" if estimated else ""
        what, way = ("batch", " of map, or --max-total-tokens") if of_batch else ("run", "")
        used = f"The {what} used {tokens_used:,} tokens{guessed}, its limit is {token_limit:,}"
        super().__init__(message or f"{used}: raise max_tokens{way}.")
        self.tokens_used = tokens_used
        self.token_limit = token_limit
        self.partial_answer = partial_answer
        self.estimated = estimated


class TurnLimitExceededError(LimitError):
    """An agent has answered `max_messages` messages."""

    def __init__(self, *, max_messages: int) -> None:
        super().__init__(f"The conversation has {max_messages:,} messages, its limit: raise max_messages.")
        self.max_messages = max_messages


class ErrorThresholdExceededError(LimitError):
    """`max_errors` cells in a row raised. Attributes: `error_count`, `threshold`, `last_error` (its traceback)."""

    def __init__(
        self,
        error_count: int,
        threshold: int,
        last_error: str | None = None,
        partial_answer: str | None = None,
        message: str | None = None,
    ) -> None:
        last = f" The last one:\n{last_error}" if last_error else ""
        super().__init__(message or f"{error_count} cells in a row raised, the limit is {threshold}.{last}")
        self.error_count = error_count
        self.threshold = threshold
        self.last_error = last_error
        self.partial_answer = partial_answer


class AnswerSchemaError(LimitError):
    """No answer fits the schema, after all turns of the run and two repairs.

    Attributes:
        problems: what is wrong with the last answer, a sentence each.
        reply: that answer as the model wrote it; also the `partial_answer` if there is no better one.
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


_NO_ANSWER = {
    "withheld": "the provider's filter, or the model, withheld every reply. Ask in other words, or ask another model.",
    "thinking": "every reply was only thinking, without text. Raise max_tokens in backend_kwargs, or lower "
    "reasoning_effort in sampling_args.",
    "tool_calls": "every reply called a tool that was not offered. Ask another model.",
}
"""By the cause that all replies have in common."""


class NoAnswerError(LimitError):
    """No answer after all turns, and the last reply holds none, either: it is empty, or code that is not run.

    Attributes:
        reply: the last reply; its text outside of code is the `partial_answer`.
    """

    def __init__(self, *, model: str, turns: int, reply: str, words: str = "", cause: str = "") -> None:
        super().__init__(
            f"{model} gave no answer in {turns} turn{'s' * (turns != 1)}, and none when it was asked for its last "
            f"word: {_NO_ANSWER.get(cause, 'raise max_iterations, or ask another model.')}"
        )
        self.reply = reply
        self.partial_answer = words or None


class AnswerCutError(LimitError):
    """The length limit of a reply cut the answer of an agent; `partial_answer` is what there is of it."""

    def __init__(self, *, partial_answer: str) -> None:
        super().__init__(
            f"The answer was cut after {len(partial_answer):,} characters by the length limit of a reply: ask for "
            "less, or raise max_tokens in backend_kwargs."
        )
        self.partial_answer = partial_answer


class CancellationError(_Recorded, RLMError):
    """Ctrl-C during a synchronous call.

    Attributes:
        partial_answer: the best answer so far, or None.
        usage: the `UsageSummary` of the run until then, or None.
        trajectory: the record of the run until then, or None without a logger.
    """

    def __init__(self, partial_answer: str | None = None, message: str | None = None) -> None:
        super().__init__(message or "The completion was stopped by Ctrl-C.")
        self.partial_answer = partial_answer


class LMError(RLMError):
    """A model provider refused, failed or could not be reached.

    Attributes:
        backend: the name of the backend, e.g. ``"openai"``.
        model: the model that was asked.
        status: the HTTP status, or None when there was no response.
        request_id: the provider's id of the request, or None.
        requests: how many requests of the call may be charged; 0 if none was sent, or each was refused.
        usage: the usage of the call that the provider reports, or None.
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
    """The provider reports that the conversation is longer than the model's context window."""


class NonAnswerError(LMError):
    """The reply is no answer: it was cut, withheld or refused, or it has no text. `partial_answer` is its text so far.

    Attributes:
        reason: ``"length"``, ``"content_filter"``, ``"refusal"``, ``"error"``, ``"tool_calls"`` or ``"empty"``.
    """

    def __init__(self, message: str, *, backend: str, model: str, reason: str, partial_answer: str | None) -> None:
        super().__init__(message, backend=backend, model=model, requests=1)
        self.reason = reason
        self.partial_answer = partial_answer


class KernelError(RLMError):
    """The kernel did not start, died and could not be restored, or broke the protocol."""


class RecordingError(RLMError):
    """A log or its notebook cannot be read, replayed or resumed. The message says what is missing and where."""


def check_extra(user: str, module: str, extra: str) -> None:
    """Check that an optional package is installed, without importing it.

    Args:
        user: what needs it; the beginning of a sentence.
        module: its import name.
        extra: the extra of `rlm-kernel` that installs it.

    Raises:
        ConfigError: it is not installed.
    """
    if not is_installed(module):
        raise ConfigError(f"{user} needs the extra {extra!r}: {install_command(extra)}")


def is_installed(module: str) -> bool:
    """Whether an optional package is installed. It is not imported."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None  # a folder of this name is a namespace package, without one
