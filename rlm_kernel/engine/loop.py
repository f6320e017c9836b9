"""The loop of one completion: ask the root model, run its cells, return their output to it, until it answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any

from rlm_kernel._async import gather_or_cancel, process
from rlm_kernel.clients.non_answers import non_answer, why_none
from rlm_kernel.engine.billing import ModelCalls
from rlm_kernel.engine.budget import Ledger
from rlm_kernel.engine.config import ChatMessage, Models, RunConfig
from rlm_kernel.engine.kernel_slots import KernelSlots, default_max_kernels
from rlm_kernel.engine.recorded import RecordedRun
from rlm_kernel.engine.repetition import MAX_REPEATS, TEMPERATURE
from rlm_kernel.engine.repl import Repl
from rlm_kernel.engine.root_model import RootModel
from rlm_kernel.engine.subcalls import SubcallPrompt, SubCalls
from rlm_kernel.engine.tools import Tool, begin_servers, prompt_section
from rlm_kernel.engine.turns import AnswerBuilder, Turns
from rlm_kernel.errors import ConfigError, LimitError, NoAnswerError
from rlm_kernel.kernel.guest.decoding import records
from rlm_kernel.parsing import ParsedReply, only_block, parse, without_thinking
from rlm_kernel.prompts import SMALL
from rlm_kernel.prompts.context_preview import ContextFacts, describe, type_name
from rlm_kernel.schema.answer_schema import Schema, text_of
from rlm_kernel.text import clip
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.emitter import Emitter
from rlm_kernel.trajectory.events import Event, OnEvent
from rlm_kernel.trajectory.log.redaction import without_secrets_of_tools
from rlm_kernel.types import Foreign, Input, Message, Reply, RLMChatCompletion, TextFile, UsageMeter

MAX_KEEP_SECONDS, MIN_KEEP_SECONDS = 10.0, 1.0
"""Seconds in which a persistent kernel must store the conversation after the answer, with time left and without."""

MAX_SEARCHED = 20
"""Replies that are searched for words if a run ends without an answer."""

_MAX_SHOWN, _MAX_SHOWN_OF_CHILD = 4_000, 200
"""Characters of an input without a question that a person is shown. Those of children are prompts of their parent."""

MAX_WORDS = 100_000
"""Characters of each that are searched: the end of a run does not wait for more."""

STUCK = (
    "The model has repeated itself {repeats} times in a row, with the same result. The run ends after turn {iteration} "
    "of {turns}, and the model is asked for its answer."
)
ADAPTS = "{why}: it gets the prompts for small models. With prompts='large' it keeps the others."


async def _no_logs() -> None:
    """There are no loggers to wait for."""


class Engine:
    """One completion. Make it, `run` it once.

    Args:
        config: the configuration of the RLM.
        on_event: reads the stream of events.
        live: whether the run is shown live, so that the root model's replies are streamed.
        parent: the run whose `rlm_query` this one answers; it shares its ledger.
        repl: a persistent one, which stays open; None: one of its own.
        recorded: of an earlier run, which this one resumes.
        record: called at the end for the `metadata` of the outcome.
        schema: what the answer has to fit; None: it is text.
        message: of a conversation, which this run answers.
        end_logs: awaited at the end of each turn: waits for the loggers of the user.

    Attributes:
        ledger: the limits of the tree, and what it has used.
        usage: the calls of this run and of its children.
        kernels: the kernels of the tree.
        level: of this run in the tree, 0 for the root.
        subcalls: answers the questions of cells.
    """

    def __init__(
        self,
        config: RunConfig,
        on_event: OnEvent,
        *,
        live: bool = False,
        parent: Engine | None = None,
        repl: Repl | None = None,
        recorded: RecordedRun | None = None,
        record: Callable[[], Any] = lambda: None,
        schema: Schema | None = None,
        message: ChatMessage | None = None,
        end_logs: Callable[[], Awaitable[None]] = _no_logs,
    ) -> None:
        own = Ledger(config.limits, config.max_concurrent_queries)
        self.ledger: Ledger = own if parent is None else parent.ledger
        self.kernels: KernelSlots = _kernel_turns(config) if parent is None else parent.kernels
        self.level: int = 0 if parent is None else parent.level + 1
        self.usage: UsageMeter = UsageMeter(None if parent is None else parent.usage)
        self._config = self._given = config
        self._open_again: Callable[[], list[Message]] = list
        self._recorded = recorded or RecordedRun()
        self._record = record
        self._message = message
        self._end_logs = end_logs
        self._built = AnswerBuilder(None if schema is None else schema.build)
        self._schema = None if schema is None else replace(schema, build=self._built)
        self._emit = Emitter(on_event, self._recorded.seconds)
        self._repl = repl or Repl(config)
        calls = ModelCalls(self.ledger, self.usage, config.shared)
        self.subcalls = SubCalls(
            models=config.models,
            calls=calls,
            emit=self._emit,
            reply_tokens=config.profile.sub_reply_tokens,
            max_children=config.max_concurrent_subcalls,
            child_turn=lambda: self.kernels.turn(self.level + 1),
            start_child=self._start_child if config.depth + 1 < config.max_depth else None,
            on_limit=self._repl.interrupt,
            tools={tool.name: tool for tool in config.tools if tool.kind == "function"},
            budget=Tool("budget", "function", self._left, ""),
            gates=config.gates,
            recorded=self._recorded,
        )
        remember = partial(self._repl.remember, "history")
        self._root = RootModel(config, calls, self._emit, self._recorded, remember, live)
        self._turns = Turns(config, self._repl, self.ledger, self._emit, self._schema)

    async def _left(self) -> dict[str, float | None]:
        """What is left of the limits, for `budget()` in a cell."""
        return {**self.ledger.left(), **self._turns.left()}

    @property
    def partial_answer(self) -> str | None:
        """The best answer so far: the last content of `answer`, ready or not; else the model's last words."""
        return self._repl.draft or self._last_words

    @property
    def _last_words(self) -> str | None:
        """The words of the latest reply that has any besides its code, else the last reply; None before the first."""
        last = self._root.latest
        replies = (last, *self._root.conversation.replies[:MAX_SEARCHED])
        words = (parse(reply[:MAX_WORDS]).prose for reply in replies)
        return next(filter(None, words), last.strip() or None)

    async def run(self, prompt: Input, question: str | None) -> RLMChatCompletion:
        """Answer a question over a context.

        Args:
            prompt: becomes `context`.
            question: the question for the root model; None: the prompt contains it.

        Raises:
            RLMError: a persistent kernel is in use by another run.
            LMError: the root model failed.
            LimitError: a limit was reached; its attributes hold usage and draft.
            KernelError: the kernel did not start, or could not be started again.
            ConfigError: the context or the `setup_code` cannot be used.
        """
        is_plain = self._config.depth >= self._config.max_depth
        if not is_plain:  # before the start is announced: the record has the functions of the servers
            await begin_servers((*self._config.tools, *self._config.sub_tools))
        self._announce(prompt, question)
        try:
            async with self._repl.serve(self.subcalls, self._emit, self._recorded):
                try:
                    async with self.ledger.deadline():
                        answer = await (self._ask_plainly if is_plain else self._loop)(prompt, question)
                finally:
                    self._warn_of_uncertain_costs()
                await self._repl.end_run(self._root.conversation.whole[:-1], self._seconds_to_keep)
        except BaseException as error:
            if isinstance(error, Exception):  # also one of a client of the user's
                known = getattr(error, "partial_answer", None)
                error.__dict__["partial_answer"] = self._repl.draft or known or self._last_words
                error.__dict__["run_usage"] = self.usage.summary()
            if isinstance(error, LimitError):
                error.usage = self.usage.summary()
            self._emit(events.RunFailed(error=error, given_up=self._root.given_up))
            if isinstance(error, LimitError):
                error.trajectory = self._record()
            raise
        about = self.usage.summary(), self._emit.seconds, self._record()
        given: Any = prompt.path if isinstance(prompt, TextFile) else prompt
        given = given.source if isinstance(given, Foreign) else given
        completion = RLMChatCompletion(self._config.models.root.model, given, answer, *about, parsed=self._built.last)
        self._emit(events.RunFinished(completion=completion))
        return completion

    # -- the loop

    async def _loop(self, prompt: Input, question: str | None) -> str:
        root = self._root
        reply, facts = await self._begin(prompt, question)
        for iteration in range(1, self._config.max_iterations + 1):
            if iteration > 1:
                reply = await root.ask(iteration)
            await self._turns.set_up(iteration)
            turn = await self._turns.take(reply, iteration, facts)
            seconds = self._emit.seconds - (root.asked_at or 0.0)
            self._emit(events.IterationFinished(iteration=iteration, seconds=seconds, answer=turn.answer))
            await self._end_logs()
            if turn.answer is not None:
                root.conversation.add(reply, "")
                return turn.answer
            self._warn_of_uncertain_costs()
            is_last = self._is_last(iteration)
            if is_last:
                by_schema = self._schema is not None
                root.ending = "\n\n" + self._config.profile.last_chance(question or "", by_schema=by_schema)
            elif turn.unusable and self._adapts and await self._config.models.root.size() == "unknown":
                await self._begin_again(reply)
                continue
            await root.end_turn(reply, turn.message, iteration)
            if is_last:
                break
        return await self._last_word(iteration)

    async def _begin(self, prompt: Input, question: str | None) -> tuple[Reply, ContextFacts]:
        """Start the kernel and ask for the first reply, at the same time unless the context holds tables.

        What becomes of a table depends on the libraries of the kernel, and the first message says what it is there.
        """
        earlier, has_tables = self._repl.earlier, _has_tables(prompt)
        if has_tables:
            await self._open(prompt)
            prompt = _received(prompt, self._repl.missing_libraries)
        facts = await asyncio.to_thread(_facts, prompt)
        self._open_again = partial(self._opening, prompt, question, facts, earlier)
        if has_tables:
            return await self._first_reply(), facts
        _, reply = await gather_or_cancel(self._open(prompt), self._first_reply())
        return reply, facts

    async def _first_reply(self) -> Reply:
        if self._adapts and await self._is_small():
            self._adapt("The model is small")
        self._root.begin(await asyncio.to_thread(self._open_again))  # it searches the context
        return await self._root.ask(1)

    async def _begin_again(self, reply: Reply) -> None:
        """Leave out a first reply that cannot be used: a small model would go on in its form."""
        self._adapt("The model wrote neither code nor an answer, and may be small")
        self._root.begin_again(reply, await asyncio.to_thread(self._open_again))

    @property
    def _adapts(self) -> bool:
        return self._config.profile.adapts and self._config.system_prompt is None and self._message is None

    async def _is_small(self) -> bool:
        """As the model's name or its server says; a resumed run is what it was."""
        if self._recorded.replies:
            first = self._recorded.cells.get(1)
            return first is not None and first.code == SMALL.setup_code
        return await self._config.models.root.size() == "small"

    def _adapt(self, why: str) -> None:
        self._config = self._root.config = replace(self._config, profile=SMALL)
        self._turns.adapt(self._config)
        if self._config.models.default is self._config.models.root:
            self.subcalls.reply_tokens = SMALL.sub_reply_tokens
        self._emit(events.Notice(message=ADAPTS.format(why=why)))

    def _is_last(self, iteration: int) -> bool:
        """Whether the turn is the last one: of all, or because the model repeats itself whatever it is told."""
        repeats, turns = self._turns.repetition.repeats, self._config.max_iterations
        self._root.temperature = TEMPERATURE if repeats >= MAX_REPEATS - 1 else None
        if iteration < turns and repeats >= MAX_REPEATS:
            self._emit(events.Notice(message=STUCK.format(repeats=repeats, iteration=iteration, turns=turns)))
        return iteration == turns or repeats >= MAX_REPEATS

    async def _open(self, prompt: Input) -> None:
        """Start the kernel, unless it runs already, and give it the context, or the message of a conversation."""
        message = self._message
        await self._repl.open(prompt if message is None else message.first_context)
        if message is not None:
            await self._turns.begin_message(message.first_cell, has_new_context=message.has_new_context)

    def _opening(self, prompt: Input, question: str | None, facts: ContextFacts, earlier: int) -> list[Message]:
        config = self._config
        messages = config.profile.opening(
            facts,
            question or "",
            prompt.excerpt if isinstance(prompt, TextFile) else prompt,
            system=config.system_prompt,
            tools=prompt_section(config.tools),
            sub_window=config.models.default.context_window,
            orchestrator=config.orchestrator,
            prologue=config.prologue,
        )
        if self._message is not None:
            messages[-1]["content"] += f"\n\n{self._message.note}"
        elif earlier:
            messages[-1]["content"] += "\n\n" + config.profile.continued(earlier, self._repl.variables)
        if self._schema is not None:
            messages[-1]["content"] += "\n\n" + config.profile.answer_schema(text_of(self._schema.document))
        return messages

    # -- other ways to an answer

    async def _last_word(self, turns: int) -> str:
        """The answer after the last turn: a variable, a FINAL(...), or the text of the reply.

        A reply with code is not an answer, and neither is an empty one. Then the draft in `answer` is used; without a
        draft, the model is asked again.

        Args:
            turns: how many there were.

        Raises:
            NoAnswerError: the second reply is not an answer, either.
        """
        root, self._turns.has_asked_about_empty = self._root, True
        if self._schema is not None:
            return await root.ask_by_schema(turns + 1, self._schema)
        reply = await root.ask(turns + 1)
        parsed = await self._parse_last(reply)
        answer = await self._answer_in_text(parsed, turns + 1)
        if answer is None:
            self._emit(events.Notice(message="The last reply holds no answer: the model is asked once more."))
            await root.end_turn(reply, self._why_no_answer(parsed, reply), turns + 1)
            reply = await root.ask(turns + 2)
            parsed = await self._parse_last(reply)
            answer = await self._answer_in_text(parsed, turns + 2)
        root.conversation.add(reply, "")
        if answer is None:
            causes = set(self._turns.without_text)
            cause = causes.pop() if len(causes) == 1 else ""
            raise NoAnswerError(model=reply.model, turns=turns, reply=reply.text, words=parsed.prose, cause=cause)
        return answer

    async def _parse_last(self, reply: Reply) -> ParsedReply:
        parsed = await self._turns.parse(reply.text, finished=reply.finish_reason == "stop")
        self._turns.note_text(reply, parsed)
        return parsed

    def _why_no_answer(self, last: ParsedReply, reply: Reply) -> str:
        profile = self._config.profile
        if last.answer is not None:
            return profile.not_evaluated()
        if self._turns.without_text[-1]:
            return profile.no_text(self._turns.without_text[-1])
        if last.answer_cut:
            return profile.answer_cut(reply.finish_reason or "length")
        return profile.not_an_answer(code=bool(last.blocks) or last.cut)

    async def _answer_in_text(self, last: ParsedReply, iteration: int) -> str | None:
        """The answer in the last reply, else the draft; None: neither exists."""
        if last.answer is not None:
            turn = await self._turns.text_answer(replace(last.answer, must_be_variable=False), iteration)
            if turn.answer is not None or not self._turns.is_source(last.answer):
                return last.answer.text if turn.answer is None else turn.answer
        elif not _has_no_answer(last):
            return only_block(last.prose) or last.prose
        if self._repl.draft is not None:
            self._emit(events.Notice(message="The last reply holds no answer: the draft in `answer` is used."))
        return self._repl.draft

    async def _ask_plainly(self, prompt: Input, question: str | None) -> str:
        """One plain model call without a REPL, at the maximum depth."""
        try:
            text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, default=_plain)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"A plain completion sends the prompt as JSON: {error}. Make it a str.") from error
        self._root.begin([{"role": "user", "content": f"{text}\n\n{question}" if question else text}])
        if self._schema is not None:
            return await self._root.ask_by_schema(1, self._schema)
        return await self._plain_answer(await self._root.ask(1))

    async def _plain_answer(self, reply: Reply) -> str:
        """The text of a plain completion.

        Raises:
            NonAnswerError: it has none.
        """
        text = (await process(len(reply.text), partial(without_thinking, reply.text))).strip()
        if not text:
            raise non_answer(reply, self._config.models.root.backend, why_none(reply, text) or "empty", text)
        if reply.finish_reason == "length":
            self._emit(events.Notice(message="The answer was cut at the length limit: raise max_tokens."))
        return text

    async def _start_child(self, prompt: SubcallPrompt) -> RLMChatCompletion:
        """Run an RLM with its own kernel for one prompt of an `rlm_query`; the prompt is its context."""

        def tell(event: Event) -> None:
            self._emit(events.ChildEvent(cell=prompt.slot.cell, query=prompt.query.id, index=prompt.index, event=event))

        models = Models(prompt.lm, self._config.models.others)
        config = replace(
            self._given,
            models=models,
            depth=self._config.depth + 1,
            tools=self._config.sub_tools,
            persistent=False,
            conversation=False,
        )
        recorded = self._recorded.children.get(prompt.slot)
        return await Engine(config, tell, parent=self, recorded=recorded, schema=prompt.schema).run(prompt.text, None)

    @property
    def _seconds_to_keep(self) -> float:
        """Seconds in which a persistent kernel must store the conversation; the answer waits for it."""
        left = self.ledger.seconds_left
        return MAX_KEEP_SECONDS if left is None else min(MAX_KEEP_SECONDS, max(MIN_KEEP_SECONDS, left))

    # -- the readers

    def _warn_of_uncertain_costs(self) -> None:
        for model in self.ledger.take_unpriced():
            message = (
                f"The cost of {model} is unknown, so max_budget does not count it, and its calls are made one at a "
                "time: give its prices in backend_kwargs."
            )
            self._emit(events.Notice(message=message))
        for model in self.ledger.take_estimated():
            message = (
                f"Part of the usage of {model} is an estimate, an upper bound: a call was cancelled, its connection "
                "broke, or the provider did not report its usage."
            )
            self._emit(events.Notice(message=message))

    def _announce(self, prompt: Input, question: str | None) -> None:
        config = self._config
        limit = _MAX_SHOWN_OF_CHILD if config.depth else _MAX_SHOWN
        self._emit(
            events.RunStarted(
                model=config.models.root.model,
                sub_model=config.models.default.model,
                environment=config.environment.name,
                question=question,
                context_type="str" if isinstance(prompt, TextFile) else type_name(prompt),
                context_length=prompt.characters if isinstance(prompt, TextFile) else len(prompt),
                max_iterations=config.max_iterations,
                depth=config.depth,
                context=prompt,
                setup=(*config.environment.setup, *filter(None, (config.profile.setup_code,))),
                tools=without_secrets_of_tools(tool.to_record() for tool in config.tools),
                seed=config.seed,
                schema=self._schema.document if self._schema else None,
                input_text=clip(prompt, limit) if isinstance(prompt, str) and not question else "",
            )
        )


def _facts(prompt: Input) -> ContextFacts:
    """What the first message says about the context."""
    if not isinstance(prompt, TextFile):
        return describe(prompt)
    facts, length = describe(prompt.excerpt), prompt.characters
    parts = tuple(replace(part, length=length) for part in facts.parts)
    return replace(facts, length=length, characters=length, lines=prompt.lines, parts=parts)


def _has_tables(prompt: Input) -> bool:
    """Whether a context is a table or an array, or holds one that its preview shows."""
    values = prompt.values() if isinstance(prompt, dict) else prompt if isinstance(prompt, list) else (prompt,)
    return any(isinstance(value, Foreign) for value in values)


def _received(value: Any, missing: Collection[str]) -> Any:
    """A context as the kernel has it: a table of a library that is missing there is a list of dicts."""
    if not missing:
        return value
    if isinstance(value, Foreign):
        return records(value.parts) if value.kind.partition(".")[0] in missing else value
    if isinstance(value, dict):
        return {key: _received(of, missing) for key, of in value.items()}
    return [_received(of, missing) for of in value] if isinstance(value, list) else value


def _kernel_turns(config: RunConfig) -> KernelSlots:
    pooled = config.environment.pool
    limit = default_max_kernels(config.levels, pooled) if config.max_kernels is None else config.max_kernels
    return KernelSlots(limit - pooled, config.levels - 1)


def _plain(value: Any) -> Any:
    """A value for the JSON of a plain call."""
    return records(value.parts) if isinstance(value, Foreign) else str(value)


def _has_no_answer(last: ParsedReply) -> bool:
    """Whether the last reply is not an answer: it contains code, a part of an answer, or nothing."""
    return last.answer is None and (bool(last.blocks) or last.cut or last.answer_cut or not last.prose.strip())
