"""A hand on what the models do: each cell, sub-call and call of a tool may be let through, replaced or refused.

    def on_cell(cell: CellRequest) -> Decision:
        return Refuse("no files are deleted here") if "rmtree" in cell.code else True

`RLM(..., on_cell=on_cell)` asks it before each cell.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel._async import run_in_thread
from rlm_kernel.errors import ConfigError
from rlm_kernel.mcp.approval import Approvals


@dataclass(frozen=True, slots=True)
class Refuse:
    """What was asked for does not happen. The model reads the `reason`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Replace:
    """Something else happens instead.

    Attributes:
        value: for a cell the code that runs; for a call of a tool its result, which is plain data; for a sub-call the
            answer, or a list with the answer of each prompt.
    """

    value: Any


@dataclass(frozen=True, slots=True)
class CellRequest:
    """A cell that is about to run.

    Attributes:
        code: its source.
        iteration: the turn of the model that wrote it.
        depth: of the RLM in its tree; 0 for the root.
    """

    code: str
    iteration: int
    depth: int = 0


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A call of a cell that is about to happen.

    Attributes:
        name: of the tool, or ``"llm_query"`` or ``"rlm_query"``.
        args: its positional arguments; of a sub-call the prompts.
        kwargs: its keyword arguments; of a sub-call the `model`, if it names one.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


Decision = bool | Replace | Refuse
"""True: it happens. False: it is refused."""

OnCell = Callable[[CellRequest], Decision | Awaitable[Decision]]
"""Decides about a cell. An async function runs in the engine's loop, another one in a thread."""

OnTool = Callable[[ToolRequest], Decision | Awaitable[Decision]]
"""The same for a call of a tool and for a sub-call."""

REFUSED = "it was refused"


@dataclass(frozen=True, slots=True)
class Gates:
    """Who decides what the models may do; None: everything happens.

    Attributes:
        on_cell, on_tool: functions of the user.
        approvals: decides about the tools of MCP servers.
    """

    on_cell: OnCell | None = None
    on_tool: OnTool | None = None
    approvals: Approvals = field(default_factory=Approvals)

    async def cell(self, request: CellRequest) -> str | Refuse:
        """The code that runs, or a refusal.

        Raises:
            ConfigError: the function did not decide.
        """
        decided = await _decision("on_cell", self.on_cell, request)
        if isinstance(decided, Replace):
            if not isinstance(decided.value, str):
                raise ConfigError(f"on_cell: Replace(code) takes a str, not {type(decided.value).__name__}.")
            return decided.value
        return decided or request.code

    async def tool(self, request: ToolRequest) -> Replace | Refuse | None:
        """What happens instead of a call; None: it happens.

        Raises:
            ConfigError: the function did not decide.
        """
        return await _decision("on_tool", self.on_tool, request)


NO_GATES = Gates()


async def _decision(argument: str, decide: Callable[[Any], Any] | None, request: Any) -> Replace | Refuse | None:
    """The decision. Nothing happens without one: a function that returns nothing is an error, not a consent."""
    if decide is None:
        return None
    is_async = inspect.iscoroutinefunction(decide)
    decided = decide(request) if is_async else await run_in_thread(lambda: decide(request))
    if inspect.isawaitable(decided):
        decided = await decided
    match decided:
        case True:
            return None
        case False:
            return Refuse(REFUSED)
        case Replace() | Refuse(str()):
            return decided
    raise ConfigError(f"{argument} returned {decided!r}: return True, Replace(...), Refuse(reason) or False.")
