"""One turn of a run: from the model's reply to an answer, or to the next message for the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from rlm_kernel._async import SHORT_CHARACTERS, process
from rlm_kernel.clients.non_answers import WITHHELD
from rlm_kernel.engine.budget import Ledger
from rlm_kernel.engine.config import RunConfig
from rlm_kernel.engine.repetition import Repetition, outcome_of
from rlm_kernel.engine.repl import Repl
from rlm_kernel.engine.spoken_answer import parse_spoken
from rlm_kernel.errors import ErrorThresholdExceededError, KernelError
from rlm_kernel.parsing import ParsedReply, Source, TextAnswer, parse
from rlm_kernel.parsing.marked import marked_blocks
from rlm_kernel.prompts.profile import ContextFacts
from rlm_kernel.schema.answer_schema import Schema
from rlm_kernel.schema.validation import MisfitError
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.emitter import Emitter
from rlm_kernel.types import CellReport, CellResult, Message, Reply

_WITHOUT_TEXT = {"tool_calls": "tool_calls", "length": "thinking"} | dict.fromkeys(WITHHELD, "withheld")
EARLY = "The model answered before it looked at the context: it is asked to look first."


@dataclass(frozen=True, slots=True)
class Turn:
    """How a turn ended: with an answer, or with the next message for the model.

    Attributes:
        answer: of the run, or None.
        messages: the next ones for the model.
        outcome: of the code, which a repeated reply has in common with the one before; None: no code ran.
        unusable: whether the reply held neither code nor an answer, and no code has run yet.
    """

    answer: str | None = None
    messages: tuple[str, ...] = ()
    outcome: Hashable = None
    unusable: bool = False

    @property
    def message(self) -> str:
        """All messages as one text."""
        return "\n\n".join(self.messages)

    @property
    def user_messages(self) -> list[Message]:
        """The messages that say something."""
        return [{"role": "user", "content": text} for text in self.messages if text]


class AnswerBuilder:
    """Makes the object that the user gets from the answer, and keeps it: a second call of `build` could refuse it.

    Args:
        build: of the schema; None: the JSON value is the object.

    Attributes:
        last: the object that was made last; at the end of a run, the object of the answer.
    """

    def __init__(self, build: Callable[[Any], Any] | None) -> None:
        self.last: Any = None
        self._build = build

    def __call__(self, value: Any) -> Any:
        """The object of a JSON value that fits; raises what `build` raises."""
        self.last = value if self._build is None else self._build(value)
        return self.last


@dataclass(slots=True)
class Turns:
    """The turns of one run.

    Attributes:
        config: the configuration of the RLM.
        repl: runs the cells.
        ledger: says whether a cell's sub-calls have reached a limit.
        emit: emits the events of the run.
        schema: what the answer has to fit, or None.
        repetition: the replies, as far as they repeat each other.
        has_asked_about_empty: whether the next empty answer is taken.
        without_text: why each reply has no text; empty for one that has.
    """

    config: RunConfig
    repl: Repl
    ledger: Ledger
    emit: Emitter
    schema: Schema | None = None
    repetition: Repetition = field(default_factory=Repetition)
    has_asked_about_empty: bool = False
    without_text: list[str] = field(default_factory=list)
    _iteration: int = 0
    _errors_in_a_row: int = 0  # of this run: a child's errors are not its parent's
    _challenged: bool = False
    _looked: bool = False
    _setup: str = ""
    _ready: tuple[str | None, str | None] = (None, None)

    def left(self) -> dict[str, int | None]:
        """What is left of the limits of this run: errors, iterations, depth; None: no limit."""
        config, max_errors = self.config, self.config.limits.max_errors
        return {
            "errors": None if max_errors is None else max_errors - self._errors_in_a_row,
            "iterations": config.max_iterations - self._iteration,
            "depth": max(0, config.levels - 1),
        }

    async def take(self, reply: Reply, iteration: int, facts: ContextFacts) -> Turn:
        """Run the code of a reply, or take its answer. A reply that repeats itself is answered in other words."""
        self._iteration = iteration
        parsed = await self.parse(reply.text, finished=reply.finish_reason == "stop")
        turn = self._without_text(reply, parsed) or await self._taken(parsed, reply, iteration, facts)
        if turn.answer is not None:
            return turn
        if not self.config.profile.rules.asks_again:
            return turn
        self.repetition.take(parsed, turn.outcome, turn.message)
        return replace(turn, messages=self._in_other_words(turn, facts))

    def _in_other_words(self, turn: Turn, facts: ContextFacts) -> tuple[str, ...]:
        """The message of a turn; a new one for the same reply as before, or in place of the same message as before."""
        profile, repetition = self.config.profile, self.repetition
        if repetition.repeats:
            return (f"{turn.message}\n\n{profile.repeated(repetition.repeats, facts, repetition.total - 1)}",)
        if repetition.same_message and turn.message == profile.no_code():
            return (profile.no_code_again(repetition.same_message, facts),)
        return turn.messages

    def _without_text(self, reply: Reply, parsed: ParsedReply) -> Turn | None:
        """The turn of a reply without text, whose cause is known; None: it is another one."""
        reason = self.note_text(reply, parsed)
        if not reason:
            return None
        return _told(self.config.profile.no_text(reason))

    def note_text(self, reply: Reply, parsed: ParsedReply) -> str:
        """Why a reply has no text: withheld, thinking or tool_calls; empty if it has, or if the cause is not known."""
        reason = ""
        if not (parsed.blocks or parsed.answer or parsed.cut or parsed.answer_cut or parsed.prose):
            reason = _WITHOUT_TEXT.get(reply.finish_reason or "", "")
        self.without_text.append(reason)
        return reason

    async def _taken(self, parsed: ParsedReply, reply: Reply, iteration: int, facts: ContextFacts) -> Turn:
        profile = self.config.profile
        if parsed.cut:
            return _told(profile.cut(reply.finish_reason or "length"))
        if parsed.blocks:
            return await self._run_blocks(parsed, iteration, facts)
        if parsed.answer is None:
            if parsed.answer_cut:
                return _told(profile.answer_cut(reply.finish_reason or "length"))
            return _told(profile.no_code(), unusable=not self._looked)
        challenges = profile.rules.text_answers == "challenged"
        if challenges and not self.is_source(parsed.answer) and not self._looked and not self._challenged:
            self._challenged = True
            self.emit(events.Notice(message=EARLY))
            return _told(profile.look_first())
        return await self.text_answer(parsed.answer, iteration, facts)

    async def parse(self, text: str, *, finished: bool = True) -> ParsedReply:
        """A reply, parsed.

        Raises:
            AnswerCutError: of a conversation: the length limit cut the answer.
        """
        read = parse_spoken if self.config.conversation else parse
        parsed = await process(len(text), lambda: read(text, finished=finished))
        rules = self.config.profile.rules
        if rules.fences == "repl":
            parsed = replace(parsed, blocks=marked_blocks(text), cut=False)
        return replace(parsed, answer=None, answer_cut=False) if rules.text_answers == "ignored" else parsed

    def adapt(self, config: RunConfig) -> None:
        """Use other prompts from now on. Their `setup_code` runs before the next turn."""
        self.config, self._setup = config, config.profile.setup_code

    async def set_up(self, iteration: int) -> None:
        """Run the `setup_code` of prompts that came after the kernel had started."""
        code, self._setup = self._setup, ""
        if code:
            await self._recover(await self.repl.run(code, iteration, is_ours=True))

    async def begin_message(self, code: str, *, has_new_context: bool) -> None:
        """Run the first cell of a message, which takes it over into the kernel.

        Args:
            code: the cell.
            has_new_context: whether the model has to look at the context before it answers.

        Raises:
            KernelError: the cell failed.
        """
        result = await self.repl.run(code, 1, is_ours=True)
        if await self._recover(result):  # it had died since the message before
            result = await self.repl.run(code, 1, is_ours=True)
        if result.status != "ok":
            why = result.error.traceback if result.error else result.status
            raise KernelError(f"The kernel did not take the message: {why}")
        self._looked = not has_new_context

    async def _run_blocks(self, parsed: ParsedReply, iteration: int, facts: ContextFacts) -> Turn:
        """Run the blocks in order until one gives the answer or fails."""
        results: list[CellResult] = []
        notes: list[str] = []
        asked = self.repl.asked
        for code in parsed.blocks:
            notes += await self._recover()
            result = await self.repl.run(code, iteration)
            self._looked = True
            results.append(result)
            if result.code != code:
                notes.append(self.config.profile.changed(result.code))
            self._check_limits(result)
            turn = await self._answer_of_cell(result)
            if turn.answer is not None:
                return turn
            if turn.message and turn.message not in notes:
                notes.append(turn.message)
            if result.report.restored:
                notes.append(self.config.profile.restored(result.report.restored))
            notes += await self._recover(result)
            stops = self.config.profile.rules.stops_at_error or not result.kernel_alive
            if (result.status != "ok" and stops) or (self._is_new_answer(result) and turn.message):
                break
        if parsed.answer is not None:
            turn = await self._answer_beside_code(parsed.answer, results, iteration, facts)
            if turn.answer is not None:
                return turn
            notes.append(turn.message)
        outcome = outcome_of(results, notes, self.repl.asked - asked)
        return Turn(messages=await self._outputs(results, notes, iteration, facts), outcome=outcome)

    async def _recover(self, ended: CellResult | None = None) -> list[str]:
        """Restart a kernel that died in this cell or since the last one. Returns notes about it for the model."""
        # A recorded cell that ended its kernel was not run again, so this kernel may be alive.
        if not self.repl.died and (ended is None or ended.kernel_alive):
            return []
        recovery = await self.repl.revive(ended)
        return [self.config.profile.restarted(recovery.reason, recovery.kept, recovery.lost)]

    async def _outputs(
        self, results: Sequence[CellResult], notes: Sequence[str], iteration: int, facts: ContextFacts | None
    ) -> tuple[str, ...]:
        messages = partial(
            self.config.profile.after,
            results,
            notes=notes,
            iteration=iteration,
            max_iterations=self.config.max_iterations,
            facts=facts,
        )
        return await process(sum(map(_characters, results)), messages)

    async def _answer_beside_code(
        self, answer: TextAnswer, results: Sequence[CellResult], iteration: int, facts: ContextFacts
    ) -> Turn:
        """A text answer in a reply with code: a variable is the answer; a literal is a guess, and ignored."""
        ended_well = all(result.status == "ok" for result in results)
        if self.config.profile.rules.text_answers == "taken":
            return await self.text_answer(answer, iteration, facts)
        if self.is_source(answer) and ended_well:
            return await self.text_answer(answer, iteration, facts)
        if answer.name is not None and ended_well:
            turn = await self.text_answer(replace(answer, must_be_variable=True), iteration, facts)
            if turn.answer is not None or answer.must_be_variable:
                return turn
        return _told(self.config.profile.guess_ignored())

    def is_source(self, answer: TextAnswer) -> bool:
        """Whether the value of an answer's source is the answer, and not its text."""
        source = answer.source
        return source is not None and (source.certain or source.names <= {*self.repl.variables, "context"})

    async def text_answer(self, answer: TextAnswer, iteration: int, facts: ContextFacts | None = None) -> Turn:
        """An answer given as text: the value of the variable or expression that it is, or the text.

        Args:
            answer: the answer.
            iteration: the turn.
            facts: repeated after an error.
        """
        if answer.source is not None and self.is_source(answer):
            return await self._evaluate(answer.source, iteration, facts)
        report, notes = CellReport(), list[str]()
        if answer.name is not None:
            read, notes = await self._read(answer.name)
            if read is None:
                return _told("\n\n".join([*notes, self.config.profile.not_read(answer.name)]))
            report = read
        if report.final is not None:
            return await self._accept(report.final, report.final_json)
        if answer.must_be_variable:
            return _told("\n\n".join([*notes, self.config.profile.no_variable(answer.name or "")]))
        return await self._accept(answer.text)

    async def _read(self, name: str) -> tuple[CellReport | None, list[str]]:
        """The value of a variable, and notes. It is read again if the kernel was lost: an earlier cell may be why."""
        notes = await self._recover()
        report = await self.repl.read(name)
        if report is None and self.repl.died:
            notes += await self._recover()
            report = await self.repl.read(name)
        return report, notes

    async def _evaluate(self, source: Source, iteration: int, facts: ContextFacts | None) -> Turn:
        """The value of an expression, from a cell, so that the record and the notebook have it."""
        notes, asked = await self._recover(), self.repl.asked
        result = await self.repl.run(f"FINAL({source.code})", iteration)
        self._looked = True
        self._check_limits(result)
        turn = await self._answer_of_cell(result)
        if turn.answer is not None:
            return turn
        notes += [turn.message or self.config.profile.not_evaluated(), *await self._recover(result)]
        outcome = outcome_of([result], notes, self.repl.asked - asked)
        return Turn(messages=await self._outputs([result], notes, iteration, facts), outcome=outcome)

    async def _answer_of_cell(self, result: CellResult) -> Turn:
        """The answer of a cell, if there is one."""
        report, turn = result.report, Turn()
        for text, as_json in ((report.answer, report.answer_json), (report.final, report.final_json)):
            # An empty `answer` of an earlier cell is still there.
            is_old = text == "" == self._ready[0] and report.final is None and "answer" not in result.code
            if result.status == "ok" and text is not None and turn.answer is None and not is_old:
                turn = await self._accept(text, as_json)
        return turn

    def _is_new_answer(self, result: CellResult) -> bool:
        """Whether this cell gave an answer. A rejected answer of an earlier cell is still in `answer`."""
        before, self._ready = self._ready, (result.report.answer, result.report.answer_json)
        return result.report.final is not None or self._ready != before

    async def _accept(self, text: str, as_json: str | None = None) -> Turn:
        """The answer, or a message for the model if it does not fit the schema, or is the first empty one."""
        asks = self.config.profile.rules.asks_again and not self.has_asked_about_empty
        if self.schema is None and not text.strip() and asks:
            self.has_asked_about_empty = True
            return _told(self.config.profile.empty_answer())
        if self.schema is None:
            return Turn(text)
        try:
            return Turn(await asyncio.to_thread(self.schema.take, text, as_json))
        except MisfitError as misfit:
            return _told(self.config.profile.misfit(misfit.problems))

    def _check_limits(self, result: CellResult) -> None:
        if self.ledger.broken is not None:
            raise self.ledger.broken
        if result.status == "ok":
            self._errors_in_a_row = 0
        elif result.status == "error" and result.error is not None:  # a cell that was ended is not an error of its code
            self._errors_in_a_row, limit = self._errors_in_a_row + 1, self.config.limits.max_errors
            if limit is not None and self._errors_in_a_row >= limit:
                raise ErrorThresholdExceededError(
                    error_count=self._errors_in_a_row, threshold=limit, last_error=result.error.traceback
                )


def _told(message: str, *, unusable: bool = False) -> Turn:
    return Turn(messages=(message,), unusable=unusable)


def _characters(result: CellResult) -> int:
    """The length of the texts that a model would read of a cell if nothing was clipped."""
    texts = [
        output["text"] if output["output_type"] == "stream" else output.get("data", {}).get("text/plain", "")
        for output in result.outputs
    ]
    texts.append(result.error.traceback if result.error else "")
    # A kernel may send anything as text: what is not one counts as long.
    return sum(len(text) if isinstance(text, str) else SHORT_CHARACTERS + 1 for text in texts)
