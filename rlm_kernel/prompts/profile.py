"""The texts for a model: a `PromptProfile` has every text that the engine sends to it.

Large models need a short, complete description of the notebook; small ones need worked examples, a piece of the context
and short outputs. Both are data (`profiles/`), so the engine never asks which one it has. Foreign text (the
question, the context, a user's own system prompt) is only ever concatenated, never used as a template.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from string import Formatter
from typing import Any, Literal

from rlm_kernel.errors import ConfigError
from rlm_kernel.prompts.cell_output import render_result
from rlm_kernel.prompts.context_preview import ContextFacts, describe, preview, sample
from rlm_kernel.prompts.few_shot import Example, choose, load_examples, read_data
from rlm_kernel.prompts.question_matches import question_lines
from rlm_kernel.types import CellError, CellResult, Message, Prompt

__all__ = ["ContextFacts", "PromptProfile", "describe", "question_lines"]

_EXAMPLE = """lines = [line for line in str(context).splitlines() if line.strip()]
print(len(lines), "lines")
for line in lines[:5] + lines[5:][-5:]:
    print(line[:200])"""
_EXAMPLES = {
    "dict": """for key, value in list(context.items())[:5]:
    print(key, type(value).__name__, str(value)[:200])""",
    "list": """for number, item in enumerate(context[:5]):
    print(number, type(item).__name__, str(item)[:200])""",
}
"""Cells that run on any context of a type."""

_CUT_BY = {
    "content_filter": "by the provider's filter",
    "refusal": "by a refusal",
    "error": "by an error of the provider",
}
_NEXT = {"content_filter": "another", "refusal": "another", "error": "the whole"}
"""How replies were cut that the length limit did not end, and what to write next."""

_EITHER = (
    "If you know the answer, send one line and nothing else: FINAL(the answer itself). If not, send one ```repl block "
    "with Python that prints what you want to know."
)
_MANY_NAMES = 40
_ASKED_CHARACTERS = 2_000
_END = 500
_EXAMPLE_CHARACTERS = 120
_MAX_RAISED = 2_000
"""Characters of an error that the patterns of hints are matched against."""

TOOLS_FIELD = "{custom_tools_section}"
"""Where a system prompt that was written for `str.format` has the custom tools."""

_ADVICE = re.compile(r"^# How to work\n.*?(?=^# |\Z)", re.MULTILINE | re.DOTALL)
_RAISED_AT = re.compile(r"^-+> *\d+ +(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Rules:
    """How replies are read, and what the engine does about them.

    Attributes:
        fences: ``"all"`` code; or what is fenced as ``"repl"`` only, as the reference reads it.
        text_answers: ``"challenged"`` before any code has run; ``"taken"``, also beside code; or ``"ignored"``.
        stops_at_error: whether the blocks after one that raises are left out.
        asks_again: whether an empty answer is asked about once, and a model that repeats itself is stopped.
    """

    fences: Literal["all", "repl"] = "all"
    text_answers: Literal["challenged", "taken", "ignored"] = "challenged"
    stops_at_error: bool = True
    asks_again: bool = True


@dataclass(frozen=True, slots=True)
class PromptProfile:
    """All texts for a model, and their limits.

    An empty text of a method is not sent.

    Attributes:
        name: ``"large"``, ``"small"`` or a user's own name.
        system: the system message.
        examples: worked examples to choose from, shown between the system message and the question.
        shown_examples: the most examples.
        reply_tokens: the most tokens of a reply of the root model; None: the server's own limit.
        sub_reply_tokens: the most tokens of an answer of `llm_query`; None: the server's own limit.
        output_characters: the most characters of one turn's output for the model.
        preview_characters: characters of the context in the opening.
        question_lines: the most lines with words of the question in the opening.
        setup_code: run in the kernel before the first turn.
        hints: advice on errors: a pattern for ``Name: message``, and a sentence. The first match is used.
        style: ``"full"`` includes turns, sizes and variables; ``"brief"`` is for small models.
        adapts: whether a model that is small, or begins with neither code nor an answer, gets those for small models.
        rules: how replies are read.
        notice: said to the user at the start of a run.
    """

    name: str
    system: str
    examples: tuple[Example, ...] = ()
    shown_examples: int = 0
    reply_tokens: int | None = 4_096
    sub_reply_tokens: int | None = 4_096
    output_characters: int = 20_000
    preview_characters: int = 1_500
    question_lines: int = 0
    setup_code: str = ""
    hints: tuple[tuple[str, str], ...] = ()
    style: Literal["full", "brief"] = "full"
    adapts: bool = False
    rules: Rules = Rules()
    notice: str = ""

    def opening(
        self,
        facts: ContextFacts,
        question: str,
        prompt: Prompt,
        *,
        system: str | None = None,
        tools: str = "",
        sub_window: int | None = None,
        orchestrator: bool | None = None,
        prologue: str | None = None,
        notes: Sequence[str] = (),
        max_iterations: int = 30,  # noqa: ARG002 (a `TrainedProfile` says it)
    ) -> list[Message]:
        """The conversation before the model's first turn.

        Args:
            facts: `describe(prompt)`.
            question: the user's question; empty if it is in the context itself.
            prompt: the context; searched for lines with words of the question if the profile shows them.
            system: a user's own system prompt instead of the profile's; see `filled_in`.
            tools: the description of custom tools, at the end of the system message.
            sub_window: tokens that one `llm_query` can read, or None if unknown.
            orchestrator: whether the system message says how to divide the work between code and sub-calls; None: that
                of the profile does, and a user's own is not changed.
            prologue: a user's text at the end of the opening.
            notes: further texts after that.
            max_iterations: the most turns.
        """
        asked, matches = (question, self.question_lines) if question else (_question_within(prompt), 0)
        blocks = self._task(facts, asked, prompt, self.preview_characters, matches)
        if self.style == "full":
            blocks.append(_window(sub_window))
        blocks += filter(None, (prologue, *notes))
        shown = choose(self.examples, facts, asked, self.shown_examples)
        rules = self.system if system is None else filled_in(system, f"\n{tools}" if tools else "")
        if orchestrator is False:
            rules = _ADVICE.sub("", rules)
        elif orchestrator and system is not None and not advice_of(rules):
            rules = f"{rules}\n\n{advice_of(self.system)}"
        rest = "" if tools and tools in rules else tools
        return [
            {"role": "system", "content": "\n\n".join(filter(None, (rules, rest)))},
            *(message for example in shown for message in self._turns(example)),
            {"role": "user", "content": "\n\n".join(blocks)},
        ]

    def _task(self, facts: ContextFacts, question: str, prompt: Prompt, room: int, max_lines: int) -> list[str]:
        lines = question_lines(prompt, question, max_lines) if max_lines else []
        matches = ["Lines of it with words of the question:\n" + "\n".join(lines)] if lines else []
        if self.style == "full":
            return [f"Question: {question}", preview(facts, room), *matches]
        return [sample(facts, room), *matches, f"Question: {question}"]

    def _turns(self, example: Example) -> Iterator[Message]:
        facts = describe(example.context)
        yield _user("\n\n".join(self._task(facts, example.question, example.context, _EXAMPLE_CHARACTERS, 1)))
        for step in example.steps:
            yield {"role": "assistant", "content": f"```repl\n{step.code}\n```"}
            yield _user(_with_heading(1, 1, step.output))
        yield {"role": "assistant", "content": f"FINAL({example.answer})"}

    def outputs(
        self,
        results: Sequence[CellResult],
        *,
        notes: Sequence[str] = (),
        iteration: int,
        max_iterations: int,
        facts: ContextFacts | None = None,
    ) -> str:
        """The user message after a reply's cells ran.

        Args:
            results: the cells that ran, in order.
            notes: further texts for the model, one sentence or paragraph each.
            iteration: the turn that ended, counted from 1.
            max_iterations: the most turns.
            facts: repeated after an error, to remind the model of `context`.
        """
        room = self.output_characters // max(1, len(results))
        show = render_result if self.style == "full" else brief
        blocks = [_with_heading(n, len(results), show(result, room)) for n, result in enumerate(results, 1)]
        blocks += notes
        if self.style == "full":
            return "\n\n".join(blocks + _status(results, iteration, max_iterations))
        if results and results[-1].error:
            blocks += [self._hint(results[-1].error), *([sample(facts, self.preview_characters)] if facts else [])]
        return "\n".join(blocks)

    def after(
        self,
        results: Sequence[CellResult],
        *,
        notes: Sequence[str] = (),
        iteration: int,
        max_iterations: int,
        facts: ContextFacts | None = None,
    ) -> tuple[str, ...]:
        """The user messages after a reply's cells ran: one, with all `outputs`. The arguments are those of it."""
        more = {"iteration": iteration, "max_iterations": max_iterations}
        return (self.outputs(results, notes=notes, facts=facts, **more),)

    def kept_before(self, iteration: int, max_iterations: int, question: str) -> list[Message]:  # noqa: ARG002
        """Messages before a turn, from the second on, that stay in the conversation: none."""
        return []

    def sent_with(self, iteration: int, max_iterations: int, question: str) -> list[Message]:  # noqa: ARG002
        """Messages at the end of the conversation that are sent in this turn only: none."""
        return []

    def closed(self, messages: Sequence[Message], question: str, *, by_schema: bool) -> list[Message]:
        """The messages after the last turn, with the request for an answer, which ends the last of them.

        Args:
            messages: those of the turn.
            question: the user's; empty if there is none.
            by_schema: whether the answer is JSON.
        """
        *others, last = messages or [_user("")]
        request = self.last_chance(question, by_schema=by_schema)
        return [*others, {**last, "content": f"{last['content']}\n\n{request}"}]

    def _hint(self, error: CellError) -> str:
        raised = f"{error.name}: {error.message}"[:_MAX_RAISED]
        return next(
            (hint for pattern, hint in self.hints if _compiled(pattern).search(raised)), "Write corrected code."
        )

    def no_code(self) -> str:
        """After a reply with neither code nor an answer."""
        return "That reply held neither code nor an answer. Write one ```repl block, or one line: FINAL(your answer)"

    def no_text(self, cause: str) -> str:
        """After a reply without text: it was withheld by a filter or the model, only thinking, or called a tool."""
        if cause == "withheld":
            return "That reply was withheld and did not arrive. Go on in other words: one ```repl block, or FINAL(...)."
        if cause == "thinking":
            return (
                f"That reply was only thinking, and held no text (the limit is {self.reply_tokens} tokens, thinking "
                "included). Think shortly, then write one ```repl block, or one line: FINAL(your answer)"
            )
        return "There are no tools to call. Write code as text instead: one ```repl block, or FINAL(your answer)."

    def no_code_again(self, times: int, facts: ContextFacts) -> str:
        """After `times` further replies in a row with neither code nor an answer: other words each time."""
        texts = (
            f"Again no code ran, because there was no ```repl block. {worked_example(facts)}",
            f"Send only this, or a cell of your own in the same form:\n{first_look(facts)}",
            _EITHER,
        )
        return [*texts, self.no_code()][(times - 1) % (len(texts) + 1)]

    def repeated(self, times: int, facts: ContextFacts, earlier: int = 0) -> str:
        """After a reply that repeats one before it, with the same result, for the `times`-th time in a row.

        Args:
            times: in a row.
            facts: of the context.
            earlier: how many of these texts the run has had, each of which differs from the others.
        """
        if earlier == 0:
            return f"You have sent that before, and the result is the same. Take another step. {worked_example(facts)}"
        sent = f"That was sent {times + 1} times now" if times > 1 else "That was sent before, too"
        count = f" (repeat {earlier + 1} of this run)" if earlier > 1 else ""
        return (
            f"{sent}{count}, and more of it changes nothing. Look at something new, such "
            f"as:\n{first_look(facts, earlier - 1)}\nOr give the best answer that you have: FINAL(answer)"
        )

    def look_first(self) -> str:
        """After a text answer before any code ran."""
        return (
            "No code has run yet, so that answer is a guess. Look at `context` with a ```repl block first, then answer."
        )

    def cut(self, reason: str = "length") -> str:
        """After a reply that ended inside a code block. `reason`: the finish reason."""
        following = _NEXT.get(reason, "a shorter")
        return f"{self._was_cut(reason)} inside a code block, which was not run. Write {following} block."

    def answer_cut(self, reason: str = "length") -> str:
        """After a reply that ended inside the answer. `reason`: the finish reason."""
        if reason in _NEXT:
            return f"{self._was_cut(reason)} inside the answer, which was not taken. Write {_NEXT[reason]} answer."
        return (
            f"That reply was cut (the limit is {self.reply_tokens} tokens) inside the answer, which was not taken. "
            "Write a shorter answer, or put it together in a variable and answer with FINAL_VAR(name)."
        )

    def _was_cut(self, reason: str) -> str:
        return f"That reply was cut {_CUT_BY.get(reason, f'at the length limit ({self.reply_tokens} tokens)')}"

    def empty_answer(self) -> str:
        """After the first answer of a run that is empty."""
        return "The answer is empty. If that is what you mean, give it again. If not, give the answer itself."

    def not_evaluated(self) -> str:
        """After an answer that is an expression, and that raised an error."""
        return (
            "The answer in that reply was evaluated as code, and it raised an error. Correct the code in a ```repl "
            'block, or put the answer in quotes if it is text: FINAL("...")'
        )

    def guess_ignored(self) -> str:
        """After a reply that held code and a literal answer."""
        return (
            "The answer in that reply was written before the code's output was known, so it was not taken. "
            "If the output confirms it, give it again."
        )

    def no_variable(self, name: str) -> str:
        """After `FINAL_VAR(name)` for a variable that does not exist."""
        return f"There is no variable `{name}` in the notebook. Make it in a ```repl block, or answer with FINAL(...)."

    def not_read(self, name: str) -> str:
        """After an answer that is a variable whose text the kernel did not give in time."""
        return (
            f"`{name}` could not be read, so it was not taken as the answer: the text of its value (`str({name})`) "
            "takes too long. Give what follows from it, such as a text or a number."
        )

    def changed(self, code: str) -> str:
        """After a cell that the user changed before it ran. `code`: what ran."""
        return f"The user changed that cell before it ran. This is what ran:\n```repl\n{code}\n```"

    def restored(self, names: Mapping[str, str | None]) -> str:
        """After a cell overwrote or deleted names of the notebook.

        Args:
            names: each name, with the name that keeps the cell's value (None: the cell deleted it).
        """
        return "\n".join(
            f"`{name}` belongs to the notebook and was put back"
            + (f"; your value is now in `{kept}`." if kept else ".")
            for name, kept in names.items()
        )

    def restarted(self, reason: str, kept: Sequence[str] = (), lost: Sequence[str] = ()) -> str:
        """After the kernel had to be restarted.

        Args:
            reason: one sentence without a full stop, e.g. "the cell ran longer than 30 s".
            kept: variables that were rebuilt.
            lost: variables that are gone.
        """
        parts = [f"The kernel was restarted because {reason}."]
        if kept:
            parts.append("Still there: " + _names(kept) + ".")
        parts.append("Lost: " + _names(lost) + "." if lost else "" if kept else "All variables of yours are gone.")
        return " ".join(filter(None, parts))

    def continued(self, earlier: int, variables: Mapping[str, str]) -> str:
        """At the end of the opening, when the notebook served other questions before this one.

        Args:
            earlier: the number of earlier questions.
            variables: the variables that they left, name to type.
        """
        names = "`context_0`" if earlier == 1 else f"`context_0` to `context_{earlier - 1}`"
        kept = f" Your variables are still there: {_names(list(variables))}." if variables else ""
        return (
            f"This notebook served {earlier} earlier question{'s' if earlier > 1 else ''}: those inputs are {names}, "
            f"the conversations {names.replace('context', 'history')}; `context` is the new input.{kept}"
        )

    def summarise(self) -> str:
        """The request for a summary, when the conversation nearly fills the model's window."""
        return (
            "The conversation is about to outgrow your window. Write a summary for yourself in plain words, no code: "
            "what you found, with exact values; which variables hold what; what is still to do."
        )

    def compacted(self) -> str:
        """After that summary, instead of all earlier turns."""
        return (
            "The turns before your summary are in the variable `history`; your other variables are there, too. Go on."
        )

    def answer_schema(self, schema: str) -> str:
        """At the end of the opening, when the answer has to fit a JSON Schema."""
        return (
            f"The answer must be a value that fits this JSON Schema:\n{schema}\n"
            "Give that value itself from a cell: FINAL(value), with a dict, list, number or text. It is validated."
        )

    def misfit(self, problems: Sequence[str]) -> str:
        """After an answer that does not fit the schema."""
        listed = "\n".join(f"- {problem}" for problem in problems)
        return f"The answer was not taken, because it does not fit the schema:\n{listed}\nCorrect it, give it again."

    def last_chance(self, question: str = "", *, by_schema: bool = False) -> str:
        """The user message after the last turn: answer now. `by_schema`: as JSON."""
        asked = f" The question was: {question}" if question else ""
        if by_schema:
            return f"No turns are left and no more code will run.{asked} Give your best answer as JSON, no other words."
        return f"No turns are left and no more code will run.{asked} Give your best answer in one line: FINAL(answer)"

    def not_an_answer(self, *, code: bool) -> str:
        """After a final reply that was code, or empty; `last_chance` follows."""
        return "That was code, and it was not run." if code else "Your reply was empty."


def worked_example(facts: ContextFacts) -> str:
    """A cell for this context, and how to answer from its output. It names nothing that could be an answer."""
    code = _EXAMPLES.get(facts.type_name, _EXAMPLE)
    return (
        f"For example, this reply shows a part of `context`:\n```repl\n{code}\n```\n"
        "Change it so that it shows what the question asks for. Then answer with what it has shown, in one line: "
        "FINAL(...)"
    )


def first_look(facts: ContextFacts, number: int = 0) -> str:
    """A cell that shows a part of the context, another one for each number."""
    size = 1_000 if facts.type_name not in ("dict", "list") else 3
    start = number * size % max(facts.length, 1) // size * size
    part = f"{start or ''}:{start + size}"
    shown = {"dict": f"list(context.items())[{part}]", "list": f"context[{part}]"}
    return f"```repl\nprint(len(context))\nprint({shown.get(facts.type_name, f'context[{part}]')})\n```"


def advice_of(system: str) -> str:
    """The part of a system message about the work of code and of sub-calls; empty if it has none."""
    found = _ADVICE.search(system)
    return found[0].rstrip() if found else ""


def filled_in(system: str, tools: str) -> str:
    """A user's system prompt. One that was written for `str.format` is formatted; any other text is unchanged.

    Args:
        system: the prompt. In one for `str.format`, braces are doubled, and `{custom_tools_section}` is the only field.
        tools: put where that field is.

    Raises:
        ConfigError: the field has a format, such as ``:>80``.
    """
    try:
        parts = [(name, spec) for _, name, spec, _ in Formatter().parse(system) if name is not None]
    except ValueError:  # single braces
        return system
    if not {name for name, _ in parts} <= {TOOLS_FIELD[1:-1]}:
        return system
    if any(spec for _, spec in parts):
        raise ConfigError(f"custom_system_prompt: {TOOLS_FIELD} takes no format: leave out what follows the colon.")
    return system.format(custom_tools_section=tools)


def fields_of(name: str) -> dict[str, Any]:
    """The fields of the profile of the file `profiles/{name}.toml`, with the examples of the files that it names."""
    fields = read_data("profiles", name)
    examples = tuple(example for file in fields.pop("examples", ()) for example in load_examples(file))
    hints = tuple((pattern, hint) for pattern, hint in fields.pop("hints", ()))
    rules = Rules(**fields.pop("rules", {}))
    return {"name": name, "examples": examples, "hints": hints, "rules": rules, **fields}


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _question_within(prompt: Prompt) -> str:
    """The question when only a context was given: the context itself, or that the question is in it."""
    if isinstance(prompt, str) and len(prompt) <= _ASKED_CHARACTERS:
        return prompt
    ends = f"\nIt begins and ends:\n{prompt[:_END]}\n…\n{prompt[-_END:]}" if isinstance(prompt, str) else ""
    return f"The question or task stands in `context` itself: find it there, then answer it.{ends}"


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def brief(result: CellResult, limit: int) -> str:
    """A cell's output with the error in two lines, which is what a small model can act on."""
    if result.status == "ok" and not result.outputs and "print(" in result.code:
        return "(nothing was printed, so nothing matched: search for one short word of the question)"
    if result.error is None:
        return render_result(result, limit)
    printed = tuple(output for output in result.outputs if output["output_type"] != "error")
    calm = render_result(replace(result, status="ok", error=None, outputs=printed), limit) + "\n" if printed else ""
    raised = _RAISED_AT.findall(result.error.traceback)
    line = f" in the line: {raised[-1].strip()}" if raised else ""
    return f"{calm}Error{line}\n{result.error.name}: {result.error.message[:300]}"


def _window(sub_window: int | None) -> str:
    if sub_window is None:
        return "The sub-model's window is unknown: keep each `llm_query` prompt under 20,000 characters at first."
    return f"One `llm_query` call can read about {sub_window:,} tokens, its answer included."


def _with_heading(number: int, count: int, text: str) -> str:
    head = "Output:" if count == 1 else f"Output of block {number}:"
    return f"{head}\n{text}"


def _status(results: Sequence[CellResult], iteration: int, max_iterations: int) -> list[str]:
    variables = results[-1].report.variables if results else {}
    listed = ", ".join(f"{name} ({kind})" for name, kind in list(variables.items())[:_MANY_NAMES])
    return ([f"Your variables: {listed}"] if listed else []) + [f"Turn {iteration} of {max_iterations} is over."]


def _names(names: Sequence[str]) -> str:
    listed = ", ".join(f"`{name}`" for name in names[:_MANY_NAMES])
    return listed + (f" and {len(names) - _MANY_NAMES} more" if len(names) > _MANY_NAMES else "")
