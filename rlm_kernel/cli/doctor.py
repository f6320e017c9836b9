"""Check Python, kernels, the local model, API keys and Docker.

A kernel is started to check that one works. Of API keys only the names are shown. The exit code is
0 if local kernels work.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

from rlm_kernel import __version__, terminal

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.text import Text

    from rlm_kernel.cli.checks import Check

NAME = "doctor"

_MARKS = {"ok": ("✓", "green"), "absent": ("–", "dim"), "broken": ("✗", "red")}  # noqa: RUF001 (a dash is meant)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--json", action="store_true", help="print the checks as a JSON object")


def execute(args: Namespace) -> int:
    """Print the checks. Returns 1 if local kernels do not work."""
    from rlm_kernel.cli import checks

    found = checks.everything()
    works = all(check.state == "ok" for check in found if check.essential)
    if args.json:
        fields = {"version": __version__, "works": works, "checks": [asdict(check) for check in found]}
        terminal.print_result(json.dumps(fields))
    else:
        _print(found)
    return 0 if works else 1


def _print(found: list[Check]) -> None:
    from rlm_kernel.untrusted.plain_console import PlainConsole

    console = PlainConsole()
    width = max(len(check.name) for check in found)
    console.print(f"rlm-kernel {__version__}", style="bold")
    for area, checks in groupby(found, key=lambda check: check.area):
        console.print(f"\n{area}", style="bold")
        for check in checks:
            console.print(_line(check, width), soft_wrap=True)


def _line(check: Check, width: int) -> Text:
    from rich.text import Text

    mark, style = _MARKS[check.state]
    fix = f"\n{'':{width + 5}}→ {check.fix}" if check.fix else ""
    return Text.assemble("  ", (mark, style), f" {check.name:{width}} {check.detail}", (fix, "yellow"))
