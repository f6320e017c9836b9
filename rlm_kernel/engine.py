"""The loop of one completion: ask the root model, run its cells, give back what they showed, until it answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlm_kernel.errors import LimitError
from rlm_kernel.limits import ErrorCount, Ledger
from rlm_kernel.parsing import ParsedReply, TextAnswer, parse, without_thinking
from rlm_kernel.plan import Models, Plan
from rlm_kernel.prompts import describe
from rlm_kernel.records import CellResult, Message, Prompt, Reply, RLMChatCompletion
from rlm_kernel.repl import Repl
from rlm_kernel.subcalls import Prompt as SubPrompt
from rlm_kernel.subcalls import SubCalls
from rlm_kernel.together import together
from rlm_kernel.tools import prompt_section
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event, OnEvent
from rlm_kernel.trajectory.stream import EventStream
from rlm_kernel.usage import UsageMeter


@dataclass(frozen=True, slots=True)
class Turn:
    """How a turn ended: with an answer, or with what the model is told next."""

    answer: str | None = None
    message: str = ""


class Engine:
    """One completion. Make it, `run` it once.

    Args:
        plan: what the RLM was set up with.
        on_event: reads the stream of events.
        live: whether somebody watches, so that the root model's words are streamed.
        parent: the run whose `rlm_query` this one answers; it shares its ledger.

    Attributes:
        ledger: what the tree has spent, and what is left.
        usage: the calls of this run and of its children.
    """

    def __init__(self, plan: Plan, on_event: OnEvent, *, live: bool = False, parent: Engine | None = None) -> None:
        own = Ledger(plan.limits, plan.max_concurrent_queries)
        self.ledger: Ledger = own if parent is None else parent.ledger
        self.usage: UsageMeter = UsageMeter(None if parent is None else parent.usage)
        self._plan = plan
        self._emit = EventStream(on_event)
        self._live = live
        self._challenged = False
        self._errors = ErrorCount(plan.limits.max_errors)
        subcalls = SubCalls(
            models=plan.models,
            ledger=self.ledger,
            usage=self.usage,
            emit=self._emit,
            reply_tokens=plan.profile.sub_reply_tokens,
            most_children=plan.max_concurrent_subcalls,
            start_child=self._start_child if plan.depth + 1 < plan.max_depth else None,
            on_limit=self._interrupt,
            tools={tool.name: tool for tool in plan.tools if tool.kind == "function"},
        )
        self._repl = Repl(plan, subcalls, self._emit)

    @property
    def partial_answer(self) -> str | None:
        """The best answer so far: the last content of `answer`, ready or not."""
        return self._repl.draft

    async def run(self, prompt: Prompt, question: str | None) -> RLMChatCompletion:
        """Answer a question over a context.

        Args:
            prompt: becomes `context`.
            question: what the root model is asked; None when the prompt asks itself.

        Raises:
            LMError: the root model failed.
            LimitError: a limit was reached; it carries what is known until then.
            KernelError: the kernel did not start, or could not be started again.
            ConfigError: the context or the `setup_code` cannot be used.
        """
        self._announce(prompt, question)
        try:
            try:
                answer = await self._answer(prompt, question)
            finally:
                await self._repl.close()  # nothing happens after the last event
        except BaseException as error:
            if isinstance(error, LimitError):
                error.partial_answer, error.usage = self.partial_answer, self.usage.summary()
            self._emit(events.RunFailed, error=error)
            raise
        completion = RLMChatCompletion(
            self._plan.models.root.model, prompt, answer, self.usage.summary(), self._emit.seconds
        )
        self._emit(events.RunFinished, completion=completion)
        return completion

    # -- the loop

    async def _answer(self, prompt: Prompt, question: str | None) -> str:
        """The answer, before the deadline. The kernel is killed after it: no cell outlives the run."""
        plain = self._plan.depth >= self._plan.max_depth
        try:
            async with asyncio.timeout(self.ledger.seconds_left) as deadline:
                return await (self._ask_plainly(prompt, question) if plain else self._loop(prompt, question))
        except TimeoutError:
            if deadline.expired():
                raise self.ledger.timed_out() from None
            raise

    async def _loop(self, prompt: Prompt, question: str | None) -> str:
        plan, facts = self._plan, describe(prompt)
        messages = plan.profile.opening(
            facts,
            question or "",
            prompt,
            system=plan.system_prompt,
            tools=prompt_section(plan.tools),
            sub_window=plan.models.default.context_window,
        )
        # The first reply does not depend on the kernel: both are waited for at once.
        _, reply = await together(self._repl.open(prompt), self._ask_root(messages, 1))
        for iteration in range(1, plan.max_iterations + 1):
            if iteration > 1:
                reply = await self._ask_root(messages, iteration)
            turn = await self._turn(reply, iteration, prompt)
            if turn.answer is not None:
                return turn.answer
            messages += _exchange(reply, turn.message)
        messages[-1] = {
            "role": "user",
            "content": f"{turn.message}\n\n{plan.profile.last_chance(question or '')}",
        }
        return await self._last_word(messages)

    async def _turn(self, reply: Reply, iteration: int, prompt: Prompt) -> Turn:
        """What comes of a reply; the table of DESIGN 4.3."""
        profile = self._plan.profile
        parsed = parse(reply.text, finished=reply.finish_reason == "stop")
        if parsed.cut:
            return Turn(message=profile.cut())
        if parsed.blocks:
            return await self._run_blocks(parsed, iteration, prompt)
        if parsed.answer is None:
            return Turn(message=profile.no_code())
        if self._repl.cells == 0 and not self._challenged:
            self._challenged = True
            early = "The model answered before it had looked at the context; it is asked to look first."
            self._emit(events.Notice, message=early)
            return Turn(message=profile.look_first())
        return await self._text_answer(parsed.answer)

    async def _run_blocks(self, parsed: ParsedReply, iteration: int, prompt: Prompt) -> Turn:
        """Run the blocks in order until one gives the answer or does not end well."""
        results: list[CellResult] = []
        notes: list[str] = []
        for code in parsed.blocks:
            result = await self._repl.run(code, iteration)
            results.append(result)
            self._check_limits(result)
            if result.status == "ok" and (answer := _given(result)) is not None:
                return Turn(answer)
            if result.report.restored:
                notes.append(self._plan.profile.restored(result.report.restored))
            if not result.kernel_alive:
                notes.append(self._plan.profile.restarted(await self._repl.revive(result)))
            if result.status != "ok":
                break
        if parsed.answer is not None:
            turn = await self._answer_beside_code(parsed.answer, results)
            if turn.answer is not None:
                return turn
            notes.append(turn.message)
        return Turn(message=self._outputs(results, notes, iteration, prompt))

    def _outputs(self, results: Sequence[CellResult], notes: Sequence[str], iteration: int, prompt: Prompt) -> str:
        return self._plan.profile.outputs(
            results,
            notes=notes,
            iteration=iteration,
            max_iterations=self._plan.max_iterations,
            facts=describe(prompt),
        )

    async def _answer_beside_code(self, answer: TextAnswer, results: Sequence[CellResult]) -> Turn:
        """A text answer in a reply with code: a variable of that code is taken, a literal was a guess."""
        ended_well = all(result.status == "ok" for result in results)
        if answer.name is not None and ended_well:
            turn = await self._text_answer(replace(answer, must_be_variable=True))
            if turn.answer is not None or answer.must_be_variable:
                return turn
        return Turn(message=self._plan.profile.guess_ignored())

    async def _text_answer(self, answer: TextAnswer) -> Turn:
        value = await self._repl.read(answer.name) if answer.name is not None else None
        if value is not None:
            return Turn(value)
        if answer.must_be_variable:
            return Turn(message=self._plan.profile.no_variable(answer.name or ""))
        return Turn(answer.text)

    # -- the models

    async def _ask_root(self, messages: Sequence[Message], iteration: int) -> Reply:
        self._emit(events.IterationStarted, iteration=iteration)
        lm, started = self._plan.models.root, time.perf_counter()

        def on_text(text: str) -> None:
            self._emit(events.ModelText, iteration=iteration, text=text)

        async with self.ledger.call(lm.model, self.usage) as receipt:
            reply = await lm.complete(
                messages, max_tokens=self._plan.profile.reply_tokens, on_text=on_text if self._live else None
            )
            receipt.usage = reply.usage
        seconds = time.perf_counter() - started
        self._emit(events.ModelReplied, iteration=iteration, reply=reply, seconds=seconds)
        return reply

    async def _last_word(self, messages: Sequence[Message]) -> str:
        """The answer after the last turn: a variable, a FINAL(...), or whatever the model said."""
        reply = await self._ask_root(messages, self._plan.max_iterations + 1)
        parsed = parse(reply.text)
        if parsed.answer is not None:
            turn = await self._text_answer(replace(parsed.answer, must_be_variable=False))
            return turn.answer or parsed.answer.text
        return without_thinking(reply.text).strip()

    async def _ask_plainly(self, prompt: Prompt, question: str | None) -> str:
        """One plain completion, no REPL: what an RLM is at its greatest depth."""
        text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, default=str)
        content = f"{text}\n\n{question}" if question else text
        reply = await self._ask_root([{"role": "user", "content": content}], 1)
        return without_thinking(reply.text).strip()

    async def _start_child(self, prompt: SubPrompt) -> RLMChatCompletion:
        """An RLM with a kernel of its own for one prompt of an `rlm_query`; the prompt is its context."""

        def tell(event: Event) -> None:
            self._emit(events.ChildEvent, cell=prompt.cell, query=prompt.query.id, index=prompt.index, event=event)

        models = Models(prompt.lm, self._plan.models.others)
        plan = replace(self._plan, models=models, depth=self._plan.depth + 1, tools=self._plan.sub_tools)
        return await Engine(plan, tell, parent=self).run(prompt.text, None)

    # -- the limits

    def _check_limits(self, result: CellResult) -> None:
        if self.ledger.broken is not None:
            raise self.ledger.broken
        self._errors.add(None if result.error is None else result.error.traceback)

    def _interrupt(self) -> None:
        self._repl.interrupt()

    # -- the readers

    def _announce(self, prompt: Prompt, question: str | None) -> None:
        plan = self._plan
        self._emit(
            events.RunStarted,
            model=plan.models.root.model,
            sub_model=plan.models.default.model,
            environment=plan.environment.name,
            question=question,
            context_type=type(prompt).__name__,
            context_length=len(prompt),
            max_iterations=plan.max_iterations,
        )


def _given(result: CellResult) -> str | None:
    """The answer that a cell gave."""
    report = result.report
    return report.answer if report.answer is not None else report.final


def _exchange(reply: Reply, told: str) -> list[Message]:
    """A turn as it stands in the conversation. Providers refuse an empty message."""
    return [
        {"role": "assistant", "content": reply.text or "(empty)"},
        {"role": "user", "content": told},
    ]
