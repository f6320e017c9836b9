"""The latest run of a notebook: how it was asked, and the RLM that is kept for the next cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlm_kernel.api import RLM
from rlm_magics.cell_run import WatchedLogger
from rlm_magics.result import RLMResult


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run was asked with.

    Attributes:
        named: the settings, overridden by the options of the cell.
        prompt: the input, or a `Path`.
        question: the `root_prompt`; None: the input is the question.
        expression: the input as Python code, for a cell; empty: there is none.
        notes: how the input is changed on its way.
        mcp: the MCP servers of its `--mcp` options.
        yes: whether their tools may change things without a question.
        is_given: whether the input is known here, and not only in the log.
    """

    named: Mapping[str, Any]
    prompt: Any = ""
    question: str | None = None
    expression: str = ""
    notes: tuple[str, ...] = ()
    is_given: bool = True
    mcp: tuple[str, ...] = ()
    yes: bool = False


@dataclass(slots=True)
class Kept:
    """An RLM whose kernel stays for the next cell.

    Attributes:
        key: of its arguments, see `fingerprint`.
        last: the result of its latest run.
    """

    key: str
    rlm: RLM
    logger: WatchedLogger
    last: RLMResult | None = None
