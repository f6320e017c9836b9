"""The REPL of one run: a session that holds the context, its cells counted, a new kernel when the old one is lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rlm_kernel.errors import ConfigError
from rlm_kernel.plan import Plan
from rlm_kernel.records import CellResult, Output, Prompt
from rlm_kernel.subcalls import SubCalls
from rlm_kernel.tools import Tool
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.stream import EventStream

if TYPE_CHECKING:
    from rlm_kernel.session import Session


class Repl:
    """Made with the run, opened once, closed with it.

    Args:
        plan: says where the kernel lives and what is set up in it.
        subcalls: answers the cells' questions; is told which cell asks.
        emit: tells the readers of the run.

    Attributes:
        cells: how many cells ran.
        draft: the last content of `answer` that a cell left, or None.
    """

    def __init__(self, plan: Plan, subcalls: SubCalls, emit: EventStream) -> None:
        self.cells = 0
        self.draft: str | None = None
        self._plan = plan
        self._subcalls = subcalls
        self._emit = emit
        self._context: Prompt = ""
        self._session: Session | None = None

    async def open(self, context: Prompt) -> None:
        """Start the kernel and give it the context.

        Raises:
            KernelError: it did not start.
            ConfigError: the context or the `setup_code` cannot be used.
        """
        from rlm_kernel.session import Session  # imports Jupyter

        started = time.perf_counter()
        self._context = context
        self._session = await Session.open(self._plan.environment, self._subcalls, self._on_output)
        await self._fill()
        self._emit(events.KernelReady, seconds=time.perf_counter() - started)

    async def run(self, code: str, iteration: int) -> CellResult:
        """Run a cell of a turn."""
        self.cells += 1
        self._subcalls.cell = self.cells
        self._emit(events.CellStarted, iteration=iteration, cell=self.cells, code=code)
        result = await self._live.run(code)
        self.draft = result.report.draft or self.draft
        self._emit(events.CellFinished, iteration=iteration, cell=self.cells, result=result)
        return result

    def interrupt(self) -> None:
        """Interrupt the running cell, if there is a kernel to run one."""
        if self._session is not None and self._session.alive:
            self._session.interrupt()

    async def read(self, name: str) -> str | None:
        """The value of a variable as the text of an answer, or None when there is no such variable."""
        return await self._live.read(name)

    async def revive(self, ended: CellResult) -> str:
        """A new kernel after a cell ended the old one. Returns the reason, for the model.

        Raises:
            KernelError: it did not start.
        """
        reason = "the cell did not end in time" if ended.status == "timeout" else "it died while it ran the cell"
        self._emit(events.Notice, message=f"The kernel is started again, because {reason}.")
        await self._live.restart()
        await self._fill()
        return reason

    async def close(self) -> None:
        """End the kernel. Idempotent."""
        if self._session is not None:
            await self._session.close()

    @property
    def _live(self) -> Session:
        assert self._session is not None, "opened before the first turn is taken"
        return self._session

    async def _fill(self) -> None:
        await self._live.set("context", self._context)
        for tool in self._plan.tools:
            await self._provide(tool)
        if self._plan.profile.setup_code:
            await self._live.run(self._plan.profile.setup_code)

    async def _provide(self, tool: Tool) -> None:
        if tool.kind == "function":
            await self._live.define(tool.card())
        elif tool.kind == "value":
            await self._live.set(tool.name, tool.content)
        elif (cell := await self._live.run(tool.content)).error is not None:
            raise ConfigError(f"custom_tools[{tool.name!r}]: its code raised in the kernel:\n{cell.error.traceback}")

    def _on_output(self, output: Output) -> None:
        self._emit(events.CellOutput, cell=self.cells, output=output)
