"""Which calls of the tools of MCP servers may happen.

    RLM(custom_tools={"fs": MCPServer(...)}, approve=lambda call: call.is_read_only or call.tool == "write_file")
"""

from __future__ import annotations

import inspect
import json
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from rlm_kernel import terminal
from rlm_kernel._async import run_in_thread
from rlm_kernel.errors import ConfigError
from rlm_kernel.text import clip

MAX_SHOWN = 2_000
"""Characters of the arguments in a question."""

REFUSED = "the user did not allow it"
NOBODY = (
    "it is not marked as read-only, and there is no terminal to ask on. The user can allow it: RLM(approve=True), or a "
    "function as approve=, or --yes"
)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool of an MCP server that is about to happen.

    Attributes:
        server: its name in `custom_tools`.
        tool: the name that the server gave the tool, or ``"resources/read"``.
        arguments: what is sent, by the server's own names.
        title: of the tool for a person; its name if the server gave none.
        is_read_only: whether the server says that the call changes nothing (`readOnlyHint`).
    """

    server: str
    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    is_read_only: bool = False


Approve = Callable[[ToolCall], bool | Awaitable[bool]]
"""Whether a call may happen; asked about every call. An async function runs in the engine's loop, another in a thread."""


class Approvals:
    """Decides about the calls of one RLM.

    Args:
        approve: a function; True: every call may happen; False: only what is read-only; None: what is not read-only is
            asked about on the terminal, once for each tool, and refused if there is none.

    Raises:
        ConfigError: it is something else.
    """

    def __init__(self, approve: Approve | bool | None = None) -> None:
        if not (approve is None or isinstance(approve, bool) or callable(approve)):
            raise ConfigError(f"approve is a function of a ToolCall, True, False or None, not {approve!r}.")
        self._approve = approve
        self._decided: dict[tuple[str, str], bool] = {}
        self._turn = threading.Lock()

    async def why_not(self, call: ToolCall) -> str:
        """Why a call must not happen; empty if it may.

        Raises:
            ConfigError: the function did not decide.
        """
        if callable(self._approve):
            return "" if await self._asked(self._approve, call) else REFUSED
        if self._approve or call.is_read_only:
            return ""
        if self._approve is False:
            return f"it is not marked as read-only, and approve=False: {REFUSED}"
        return await run_in_thread(lambda: self._on_terminal(call))

    async def _asked(self, approve: Approve, call: ToolCall) -> bool:
        is_async = inspect.iscoroutinefunction(approve)
        decided: Any = approve(call) if is_async else await run_in_thread(lambda: approve(call))
        if inspect.isawaitable(decided):
            decided = await decided
        if not isinstance(decided, bool):  # nothing happens without a decision
            raise ConfigError(f"approve returned {decided!r}: return True or False.")
        return decided

    def _on_terminal(self, call: ToolCall) -> str:
        """Ask once for each tool."""
        key = (call.server, call.tool)
        with self._turn:  # children and batches ask at the same time
            if key not in self._decided:
                if not is_terminal():
                    return NOBODY
                self._decided[key] = ask(call, terminal.ask)
            return "" if self._decided[key] else REFUSED


def ask(call: ToolCall, how: Callable[[str], str]) -> bool:
    """Ask a person about a call, and so about all calls of its tool.

    Args:
        call: the call.
        how: shows a text and returns a line of the person.
    """
    arguments = clip(json.dumps(call.arguments, ensure_ascii=False, default=str), MAX_SHOWN)
    title = f" ({call.title})" if call.title not in ("", call.tool) else ""
    said = how(f"The model wants to call {call.tool}{title} of {call.server} with {arguments}\nAllow it, from now on? [y/N] ")
    return said.strip().lower() in ("y", "yes")


def is_terminal() -> bool:
    """Whether somebody can be asked on a terminal. A drawing on it stands still from then on."""
    try:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
    except (AttributeError, ValueError):  # there is none, or it was closed
        return False
    from rlm_kernel.trajectory.console.screen import standard_error

    standard_error().keep_still()
    return True
