"""Run the cells of a recorded run again, without an API key.

The cells run in the environment that the run used. Models are not asked: sub-calls get their
recorded answers. Outputs and the answer are compared with the record. The exit code is 7 if they
differ.

FILE is the log of a run (.jsonl) or its notebook (.ipynb). The cells of a notebook run as they
are in the file, so you can edit them first. With --live, models are asked for answers that are
not in the record.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rlm_kernel import inputs, terminal
from rlm_kernel.cli import exit_codes, shared_options, trust_command
from rlm_kernel.clients import options
from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rlm_kernel.replay.replayer import ReplayReport
    from rlm_kernel.replay.steps import Step

NAME = "replay"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add("file", metavar="FILE", help="a log or its notebook")
    add("--live", action="store_true", help="ask models for answers that are not in the record")
    shared_options.add_model(parser, "the recorded one; only with --live")
    add("--environment", help="where the cells run (default: the recorded environment)")
    shared_options.add_context(parser, "an input to use in place of the recorded one")
    trust_command.add_option(parser)
    add("--json", action="store_true", help="print the report as a JSON object")
    add("--quiet", action="store_true", help="do not show which cell is running")


def execute(args: Namespace) -> int:
    """Replay and print the report.

    Raises:
        RLMError: the record, the kernel or the arguments are wrong.
    """
    from rlm_kernel.replay.replayer import replay

    report = replay(
        args.file,
        mode="live" if args.live else "replay",
        environment=args.environment,
        context=inputs.of_arguments(args),
        trust=trust_command.trust_of(args),
        on_step=(lambda *_: None) if args.quiet else _show_step,
        **_backend(args),
    )
    terminal.print_result(json.dumps(_as_dict(report)) if args.json else str(report))
    return exit_codes.OK if report.equal else exit_codes.DIFFERENT


def _backend(args: Namespace) -> dict[str, Any]:
    """The models that the command line names in place of the recorded ones."""
    if not shared_options.names_model(args):
        return {}
    if not args.live:
        raise ConfigError(
            "--backend, --model, --base-url and --backend-kwarg need --live: without it no model is asked."
        )
    from rlm_kernel.trajectory.log.reader import read_log

    recorded = read_log(args.file).metadata.get("backend")
    backend = args.backend or (recorded if isinstance(recorded, str) else "openai")
    kwargs = options.backend_kwargs(backend, args.model, args.base_url, args.backend_kwarg)
    return {"backend": backend, "backend_kwargs": kwargs}


def _show_step(step: Step, place: int, count: int) -> None:
    name = f"cell {step.number}" if step.number else "an added cell"
    terminal.print_note(f"rlm: {name} runs ({place} of {count})")


def _as_dict(report: ReplayReport) -> dict[str, Any]:
    found = [{"kind": d.kind, "cell": d.cell, "what": d.what, "diff": d.diff} for d in report.divergences]
    return {
        "equal": report.equal,
        "environment": report.environment,
        "cells": list(report.results),
        "skipped": list(report.skipped),
        "recalled": report.recalled,
        "divergences": found,
        "answer": report.answer,
        "usage": report.usage.to_dict(),
    }
