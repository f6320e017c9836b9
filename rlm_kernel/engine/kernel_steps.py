"""The steps that bring a kernel into the state of a run: for its start, a rebuild, a resumed run and a replay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlm_kernel.trajectory.tree import SETUP, Cell, History, take_history
from rlm_kernel.types import CellResult

if TYPE_CHECKING:
    from rlm_kernel.kernel.protocol import Encoding
    from rlm_kernel.kernel.session import Session


@dataclass(frozen=True, slots=True)
class StoredValue:
    """An encoded value that the host does not decode: a pickle from a file is opened in the kernel, and only there."""

    encoding: Encoding
    content: bytes


@dataclass(frozen=True, slots=True)
class VariableSet:
    """The host gives a value, or a `StoredValue`, to a name."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class ToolDefined:
    """The host defines a function that calls a tool. `card`: see `Tool.card`."""

    card: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CellRun:
    """A cell runs to its end. It may leave variables also when it raises."""

    cell: int
    code: str


KernelStep = VariableSet | ToolDefined | CellRun


async def take_step(session: Session, step: KernelStep) -> CellResult | None:
    """Take a step in a kernel.

    Returns:
        What a cell did; None for other steps.

    Raises:
        ConfigError: the value cannot be sent, or the kernel cannot read it.
        KernelError: the kernel died.
    """
    match step:
        case CellRun(_, code):
            return await session.run(code)
        case ToolDefined(card):
            await session.define(card)
        case VariableSet(name, StoredValue(encoding, content)):
            await session.put(name, encoding, content)
        case VariableSet(name, value):
            await session.set(name, value)
    return None


def tool_step(kind: str, name: str, content: Any) -> KernelStep:
    """The step that provides a custom tool. `content`: the card of a function, the source of code, or the value."""
    if kind == "function":
        return ToolDefined(content)
    return VariableSet(name, content) if kind == "value" else CellRun(SETUP, content)


def context_steps(context: Any, index: int, *, persistent: bool) -> Iterator[VariableSet]:
    """The steps that begin a run.

    Args:
        context: its input, or that as a `StoredValue`.
        index: how many runs the kernel has served before.
        persistent: whether the kernel may serve another run.
    """
    if index:  # what the run before left in these names does not belong to this one
        yield from (VariableSet("answer", {"content": "", "ready": False}), VariableSet("history", []))
    if persistent:
        yield VariableSet(f"context_{index}", context)
    yield VariableSet("context", context)


def prior_run_steps(
    context: Any, index: int, cells: Iterable[Cell], histories: dict[int, History], conversation: History
) -> Iterator[KernelStep]:
    """The steps that repeat an earlier run of a persistent kernel.

    Args:
        context: its input, or that as a `StoredValue`.
        index: how many runs the kernel had served before it.
        cells: those to run again.
        histories: the values of `history` that its cells found, each by the number of the first one.
        conversation: the whole of it, which the next run finds as `history_N`.
    """
    yield from context_steps(context, index, persistent=True)
    histories = dict(histories)
    for cell in cells:
        if (history := take_history(histories, cell.number)) is not None:
            yield VariableSet("history", history)
        yield CellRun(cell.number, cell.code)
    yield VariableSet(f"history_{index}", conversation)
