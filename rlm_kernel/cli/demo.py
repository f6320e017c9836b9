"""Let a model answer questions over the source of the standard library.

The model gets three questions over more than ten million characters. The run is shown live, and
each answer is checked. Code can answer two of the questions; the third needs a judgement for each
of six files. The default model is a small one that runs on this machine. Its file (1.1 GB) is
downloaded at the first use.

The exit code is 0 if the two code questions are answered correctly.
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlm_kernel.cli import logs, shared_options
from rlm_kernel.clients import options
from rlm_kernel.errors import ConfigError, LimitError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import Console

    from rlm_kernel.api import RLM
    from rlm_kernel.cli.demo_questions import Question, Sources, Verdict
    from rlm_kernel.trajectory.log.logger import RLMLogger
    from rlm_kernel.types import RLMChatCompletion

NAME = "demo"

_BACKEND = "llamacpp"
_MAX_TURNS = 10
_CELL_SECONDS = 300
"""A small model may ask about all files, not only about the six of the question."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How a question went. `completion` is None when the run ended without an answer."""

    question: Question
    verdict: Verdict
    seconds: float
    completion: RLMChatCompletion | None


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add("--question", type=int, metavar="N", help="ask only question N, from 1 to 3")
    add("--scripted", action="store_true", help="use replies written in advance: no model, no download, real code")
    shared_options.add_model(parser, _BACKEND)
    logs.add_arguments(parser)


def execute(args: Namespace) -> int:
    """Ask the questions and check the answers. Returns 1 if a code question was answered wrong.

    Raises:
        RLMError: the model or the kernel failed, or the options contradict each other.
    """
    from rlm_kernel.cli.demo_questions import standard_library
    from rlm_kernel.untrusted.plain_console import PlainConsole

    questions = _chosen(args)
    _check_model(args)
    console = PlainConsole()
    sources = standard_library()
    _introduce(console, args, sources)
    logger = logs.logger(args)
    outcomes = [_answer(console, args, sources, logger, number, question) for number, question in questions]
    _sum_up(console, outcomes)
    return 0 if all(done.verdict.right for done in outcomes if done.question.kind == "code") else 1


def _chosen(args: Namespace) -> list[tuple[int, Question]]:
    from rlm_kernel.cli.demo_questions import QUESTIONS

    numbered = list(enumerate(QUESTIONS, 1))
    if args.question is None:
        return numbered
    if not 1 <= args.question <= len(numbered):
        raise ConfigError(f"--question takes a number from 1 to {len(numbered)}, not {args.question}.")
    return [numbered[args.question - 1]]


def _check_model(args: Namespace) -> None:
    """Check the options and download the local model before anything is shown."""
    if args.scripted and shared_options.names_model(args):
        raise ConfigError("--scripted uses no model: leave out --backend, --model, --base-url and --backend-kwarg.")
    if args.scripted:
        return
    try:
        _with_model(args, None).close()
    except ConfigError as error:
        raise ConfigError(f"{error} `rlm demo --scripted` works without a model.") from error
    options.fetch(*_backend(args))


def _backend(args: Namespace) -> tuple[str, dict[str, Any]]:
    """The name of the backend and its arguments."""
    name = args.backend or _BACKEND
    return name, options.backend_kwargs(name, args.model, args.base_url, args.backend_kwarg)


def _with_model(args: Namespace, logger: RLMLogger | None) -> RLM:
    from rlm_kernel.api import RLM

    backend, kwargs = _backend(args)
    limits = {"cell_timeout": _CELL_SECONDS}
    return RLM(backend, kwargs, environment_kwargs=limits, max_iterations=_MAX_TURNS, logger=logger, verbose=True)


def _with_script(question: Question, logger: RLMLogger | None) -> RLM:
    from rlm_kernel.api import RLM
    from rlm_kernel.cli import demo_script

    return RLM(demo_script.root(question), other_backends=[demo_script.sub_model()], logger=logger, verbose=True)


def _introduce(console: Console, args: Namespace, sources: Sources) -> None:
    size = sum(map(len, sources.values()))
    console.print(
        f"The context: the standard library of Python {platform.python_version()}, "
        f"{len(sources):,} files, {size:,} characters."
    )
    if args.scripted:
        console.print(
            "SCRIPTED: no language model is used. The replies were written in advance; their code runs in a "
            "Jupyter kernel, over the real sources. Leave --scripted out to use a model.",
            style="bold yellow",
        )


def _answer(
    console: Console, args: Namespace, sources: Sources, logger: RLMLogger | None, number: int, question: Question
) -> _Outcome:
    console.print(f"\nQuestion {number}, {_KINDS[question.kind]}", style="bold")
    started = time.monotonic()
    completion: RLMChatCompletion | None = None
    with _with_script(question, logger) if args.scripted else _with_model(args, logger) as rlm:
        try:
            completion = rlm.completion(dict(sources), root_prompt=question.text)
        except LimitError as error:
            console.print(f"No answer: {error}")
    logs.report(logger)
    verdict = question.check("" if completion is None else completion.response, question.truth(sources))
    _show_verdict(console, question, verdict)
    return _Outcome(question, verdict, time.monotonic() - started, completion)


_KINDS = {"code": "which code can answer", "judgement": "which needs a judgement for each item"}


def _show_verdict(console: Console, question: Question, verdict: Verdict) -> None:
    from rich.text import Text

    mark = ("✓ right", "bold green") if verdict.right else ("✗ wrong", "bold red")
    console.print(Text.assemble(mark, f": {verdict.reason} ({question.source})"))


def _sum_up(console: Console, outcomes: list[_Outcome]) -> None:
    console.print()
    for kind, name in (("code", "code questions"), ("judgement", "judgement questions")):
        of_kind = [outcome for outcome in outcomes if outcome.question.kind == kind]
        if of_kind:
            right = sum(outcome.verdict.right for outcome in of_kind)
            console.print(f"{right} of {len(of_kind)} {name} right", style="bold")
    console.print(_totals(outcomes))


def _totals(outcomes: list[_Outcome]) -> str:
    from rlm_kernel.text import format_duration, format_tokens

    spent = [done.completion.usage_summary for done in outcomes if done.completion is not None]
    sent, received = sum(s.total_input_tokens for s in spent), sum(s.total_output_tokens for s in spent)
    calls, seconds = sum(s.total_calls for s in spent), sum(done.seconds for done in outcomes)
    return f"{calls:,} model calls · {format_tokens(sent, received)} · {format_duration(seconds)}"
