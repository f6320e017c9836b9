"""Answer a question over a file, a folder or stdin.

Only the answer goes to stdout; everything else goes to stderr.

API keys are read from the environment (OPENAI_API_KEY ...) or from a .env file in the working
directory or a parent of it. There is no option for a key, because every user of the machine can
read the command lines of running processes.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_kernel import inputs, terminal
from rlm_kernel.cli import logs, shared_options
from rlm_kernel.clients import options, registry
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rlm_kernel.api import RLM
    from rlm_kernel.engine.config import RunConfig
    from rlm_kernel.trajectory.log.logger import RLMLogger
    from rlm_kernel.types import Input, RLMChatCompletion

NAME = "run"

_BACKEND = "openai"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add("question", help="the question; without --context it is also the input")
    shared_options.add_context(
        parser, "the input: a text, a document, a folder (a dict of path to text), or - for stdin"
    )
    add_run_options(parser)
    add("--attachable", action="store_true", help="let `rlm attach` and JupyterLab connect to the REPL")
    add("--confirm", action="store_true", help="ask on the terminal before each cell and each call of a model or tool")
    add("--json", action="store_true", help="print a JSON object: answer, usage, cost, seconds, model, log")
    add("--quiet", action="store_true", help="do not show the run on stderr")
    logs.add_arguments(parser)


def add_run_options(parser: ArgumentParser) -> None:
    """Declare the options of a run: models, environment, limits of one completion."""
    add = parser.add_argument
    shared_options.add_model(parser, _BACKEND)
    add("--sub-backend", help="the provider for sub-calls (default: that of the root model)")
    add("--sub-model", help="the model for sub-calls (default: the root model)")
    add("--environment", default="local", help="where the code of the model runs (default: %(default)s)")
    help_ = "an option of the environment; VALUE is JSON or text"
    add("--environment-kwarg", metavar="KEY=VALUE", action="append", default=[], help=help_)
    add("--sandbox", action="store_true", help="put a wall around a local kernel: bubblewrap, or else Landlock")
    help_ = "maximum turns of the root model (default: %(default)s)"
    add("--max-iterations", type=int, default=30, metavar="N", help=help_)
    shared_options.add_limits(parser)
    add("--prompts", choices=("large", "small"), help="the prompt profile (default: chosen by the backend)")


def execute(args: Namespace) -> int:
    """Run a completion and print the answer.

    Raises:
        RLMError: the completion failed.
    """
    if not args.question.strip():
        raise ConfigError('The question is empty: rlm run "What is it about?" --context report.txt')
    logger = logs.logger(args)
    with rlm_of(args, logger, verbose=not args.quiet, attachable=args.attachable, **_gates(args)) as rlm:
        prompt, question = _input_and_question(args, rlm.config)
        with logs.report_when_done(logger, quiet=args.quiet):
            completion = rlm.completion(prompt, question)
    terminal.print_result(as_json(completion, logger) if args.json else completion.response)
    return 0


def _input_and_question(args: Namespace, config: RunConfig) -> tuple[Input, str | None]:
    """The input and the question about it; without --context the question is the input."""
    from rlm_kernel.engine.argument_checks import opened

    if args.context and Path(args.context).is_file():
        return opened(Path(args.context), config, "--context", max_bytes=args.max_context_bytes), args.question
    given = inputs.of_arguments(args)
    if given is not None:
        return given, args.question
    shared_options.warn_of_unread_stdin()
    return args.question, None


def rlm_of(
    args: Namespace, logger: RLMLogger | None = None, *, attachable: bool = False, asks: bool = True, **more: Any
) -> RLM:
    """The RLM that the options of `add_run_options` describe.

    Args:
        args: the options.
        logger: its logger.
        attachable: whether others may connect to the REPL.
        asks: whether this process asks its models. If not, it needs no key and no weights.
        more: further arguments of the `RLM`.
    """
    with contextlib.nullcontext() if asks else registry.without_keys():
        rlm, models = _made(args, logger, attachable=attachable, **more)
    for name, kwargs in models if asks else ():
        options.fetch(name, kwargs)
    return rlm


def _made(
    args: Namespace, logger: RLMLogger | None, *, attachable: bool, **more: Any
) -> tuple[RLM, list[tuple[str, dict[str, Any]]]]:
    """The `RLM`, and its backends with their arguments."""
    from rlm_kernel.api import RLM

    arguments, models = arguments_of(args, attachable=attachable)
    return RLM(**arguments, logger=logger, **more), models


def arguments_of(args: Namespace, *, attachable: bool) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """The arguments of an `RLM` that the options of `add_run_options` name, and its backends with theirs.

    Raises:
        ConfigError: an option is wrong.
    """
    backend = args.backend or _BACKEND
    kwargs = options.backend_kwargs(backend, args.model, args.base_url, args.backend_kwarg)
    others = [args.sub_backend or backend] if args.sub_backend or args.sub_model else []
    arguments = {
        "backend": backend,
        "backend_kwargs": kwargs,
        "environment": args.environment,
        "environment_kwargs": _environment_kwargs(args, attachable=attachable) or None,
        "max_iterations": args.max_iterations,
        "other_backends": others,
        "other_backend_kwargs": [_sub_kwargs(args, name, same=name == backend) for name in others],
        "prompts": args.prompts,
        **shared_options.limits(args),
    }
    return arguments, [(name, kwargs if name == backend else {}) for name in (backend, *others)]


def _environment_kwargs(args: Namespace, *, attachable: bool) -> dict[str, Any]:
    """The options of the environment.

    Raises:
        ConfigError: a pair without ``=``, or a key among them.
    """
    from rlm_kernel.trajectory.log.redaction import named_secrets

    kwargs = dict(options.pair(text, "--environment-kwarg") for text in args.environment_kwarg)
    if named_secrets(kwargs):
        raise ConfigError(options.KEY_ON_COMMAND_LINE)
    return kwargs | {name: True for name, given in (("attachable", attachable), ("sandbox", args.sandbox)) if given}


def _gates(args: Namespace) -> dict[str, Any]:
    """The arguments that let a person decide."""
    if not args.confirm:
        return {}
    from rlm_kernel.engine.confirmation import Confirmation
    from rlm_kernel.trajectory.console.screen import standard_error

    if args.context and "-" in args.context:
        raise ConfigError("--confirm reads answers from stdin, so the input cannot come from there: give a file.")
    standard_error().keep_still()
    asked = Confirmation(terminal.ask)
    return {"on_cell": asked.on_cell, "on_tool": asked.on_tool}


def _sub_kwargs(args: Namespace, backend: str, *, same: bool) -> dict[str, Any]:
    """The arguments of the sub-model; one of the same backend uses the same endpoint."""
    if same:
        return options.backend_kwargs(backend, args.sub_model, args.base_url, args.backend_kwarg)
    return options.backend_kwargs(backend, args.sub_model, None, [])


def as_json(completion: RLMChatCompletion, logger: RLMLogger | None) -> str:
    """The outcome as one JSON object. `cost` is null if a part of it is unknown, `log` if none was written."""
    fields = {
        "answer": completion.response,
        "model": completion.root_model,
        "seconds": round(completion.execution_time, 3),
        "usage": completion.usage_summary.to_dict(),
        "cost": completion.usage_summary.total.cost,
        "log": None if logger is None else logger.log_file_path,
    }
    return json.dumps(fields)
