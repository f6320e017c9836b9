"""What a run is doing at this moment, folded from its stream of events.

The live display of a terminal and the view of a notebook cell draw the same `RunProgress`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from rlm_kernel.text import join_text, plain
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event, SubcallAnswered, SubcallStarted
from rlm_kernel.types import Usage, UsageMeter, UsageSummary

MAX_TAIL = 4_000
"""Characters of a text in progress that are kept."""

MAX_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Subcalls:
    """Sums over the sub-calls of one cell.

    Attributes:
        began: when the first one began, in seconds since the run began.
        prompts: those of all calls so far.
        answered: how many have an answer or an error.
        failed: how many have an error.
        batched: whether one of the calls was a batch.
        kinds: the functions that were called, in order of appearance.
        models: the models that were called.
        input_tokens: of all prompts.
        output_tokens: of all answers.
        samples: at most `MAX_SAMPLES` of the answers, those that failed before the others.
        latest: when the last answer came, in seconds since the run began.
    """

    began: float
    prompts: int = 0
    answered: int = 0
    failed: int = 0
    batched: bool = False
    kinds: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    samples: tuple[SubcallAnswered, ...] = ()
    latest: float = 0.0

    @property
    def title(self) -> str:
        """The functions and the models: `llm_query to qwen`."""
        return plain(f"{', '.join(self.kinds)} to {', '.join(self.models)}")

    @property
    def seconds_left(self) -> float | None:
        """How long the prompts without an answer will take at the pace so far. None: no answer, or all are there."""
        waiting = self.prompts - self.answered
        if not (self.answered and waiting > 0):
            return None
        return (self.latest - self.began) / self.answered * waiting

    def with_call(self, event: SubcallStarted) -> Subcalls:
        """The sums with one more call."""
        return replace(
            self,
            prompts=self.prompts + event.count,
            batched=self.batched or event.count > 1,
            kinds=_with(self.kinds, event.kind),
            models=_with(self.models, event.model),
        )

    def with_answer(self, event: SubcallAnswered) -> Subcalls:
        """The sums with one more answer."""
        return replace(
            self,
            answered=self.answered + 1,
            failed=self.failed + (event.error is not None),
            input_tokens=self.input_tokens + event.usage.input_tokens,
            output_tokens=self.output_tokens + event.usage.output_tokens,
            samples=self._samples_with(event),
            latest=event.time,
        )

    def _samples_with(self, event: SubcallAnswered) -> tuple[SubcallAnswered, ...]:
        if len(self.samples) >= MAX_SAMPLES and event.error is None:
            return self.samples
        return tuple(sorted((*self.samples, event), key=lambda sample: sample.error is None)[:MAX_SAMPLES])


class RunProgress:
    """A reader of the stream of events of one run. It keeps sums and short texts only.

    Attributes:
        activity: the current activity in a few words: ``"cell 2 runs"``.
        since: when the activity began, by `time.monotonic`.
        began: when the run began, by `time.monotonic`.
        model: the label of the root model; empty before the run began.
        iteration: the current turn; 0 before the first.
        max_iterations: the limit of turns.
        tail: the end of the text that is being written or printed, at most `MAX_TAIL` characters.
        subcalls: those of the running cell; None when it made none.
        usage: tokens and cost of the run so far.
    """

    def __init__(self) -> None:
        self.activity = "starting"
        self.since = self.began = time.monotonic()
        self.model = ""
        self.iteration = self.max_iterations = 0
        self.tail = ""
        self.subcalls: Subcalls | None = None
        self._meter = UsageMeter()
        self._is_asked = False

    @property
    def turn(self) -> str:
        """The turn and the limit, such as ``2/30``; empty before the first turn."""
        if self.iteration > self.max_iterations:
            return "last word"
        return f"{self.iteration}/{self.max_iterations}" if self.iteration else ""

    @property
    def usage(self) -> UsageSummary:
        """Tokens and cost so far, by model."""
        return self._meter.summary()

    def __call__(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, events.IterationStarted | events.ModelReplied):
            self._is_asked = isinstance(event, events.IterationStarted)
        # Cells of earlier messages may run while the model reads, in a kernel that is built again.
        if not (self._is_asked and isinstance(event, events.CellStarted | events.CellFinished)):
            self._follow(event)
        self._spend(event)

    def _follow(self, event: Event) -> None:
        match event:
            case events.RunStarted():
                self.began = time.monotonic() - event.time
                self.model, self.max_iterations = event.model, event.max_iterations
                self._begin("the kernel starts")
            case events.ModelText():
                self._write(event.text, "the model writes")
            case events.CellOutput():
                self._write(join_text(event.output.get("text", "")), self.activity)
            case events.IterationStarted():
                self.iteration = event.iteration
                self._begin("the model reads")
            case events.ModelReplied():
                self._begin("the reply is parsed")
            case events.CellStarted():
                self._begin(f"cell {event.cell} runs")
            case events.CellFinished():
                self._begin("the results go back")
            case events.SubcallStarted():
                self.subcalls = (self.subcalls or Subcalls(event.time)).with_call(event)
            case events.SubcallAnswered() if self.subcalls is not None:
                self.subcalls = self.subcalls.with_answer(event)

    def _spend(self, event: Event) -> None:
        match event:
            case events.ModelReplied() | events.Compacted():
                self._add(self.model, event.reply.usage)
            case events.SubcallAnswered():
                self._add(event.model, event.usage)
            case events.SubcallFinished() | events.RunFailed():
                for model, usage in event.given_up:
                    self._add(model, usage)

    def _add(self, model: str, usage: Usage) -> None:
        if usage != Usage():  # a call that failed before it cost anything must not make the sum unknown
            self._meter.add(model, usage)

    def _begin(self, activity: str) -> None:
        self.activity, self.since, self.tail, self.subcalls = activity, time.monotonic(), "", None

    def _write(self, text: str, activity: str) -> None:
        self.activity, self.tail = activity, (self.tail + text[-MAX_TAIL:])[-MAX_TAIL:]


def _with(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names if name in names else (*names, name)
