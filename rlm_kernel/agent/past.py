"""A recorded conversation, read back for an agent that continues it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlm_kernel.agent.context import AgentContext, AgentMessage, message_of
from rlm_kernel.engine.agent_tools import AGENT, KEEP, NEXT_MESSAGE, OWN_NAMES, TAKE_MESSAGE
from rlm_kernel.engine.record_access import Trust, Use, admitted
from rlm_kernel.engine.recorded import PriorRun, RecordedRun, recorded_run_of
from rlm_kernel.engine.recorded_config import arguments_of, check_is_whole
from rlm_kernel.errors import RecordingError
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event
from rlm_kernel.trajectory.log import context_store
from rlm_kernel.trajectory.log.reader import Recording, events_of_log, read_log
from rlm_kernel.trajectory.tree import Trajectory, sum_paid
from rlm_kernel.types import UsageSummary
from rlm_kernel.untrusted import json_text

CUT_SHORT = "The process ended before the answer."


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A message whose answer the record does not hold.

    Attributes:
        text: the message.
        past: everything before it, with its own record to go on from.
    """

    text: str
    past: Past


@dataclass(frozen=True, slots=True)
class Past:
    """What the next run of a resumed agent starts from.

    Attributes:
        events: for the new record.
        recorded: for the run: earlier cells, and the record of its own message.
        usage: of the events.
    """

    events: tuple[Event, ...]
    recorded: RecordedRun
    usage: UsageSummary


@dataclass(frozen=True, slots=True)
class RecordedConversation:
    """A conversation on record.

    Attributes:
        arguments: of the `AgentRLM`, without the tools, which are functions.
        memory: of the agent.
        first_context: its context at the first message.
        unsaid: messages that its kernel has not taken.
        past: the whole of it.
        interrupted: its last message, if that has no answer.
        forked_from: which record it is, for the new one.
        model: the root model of its latest message, if that is not the one of the arguments; else empty.
    """

    arguments: dict[str, Any]
    memory: AgentContext
    first_context: dict[str, Any]
    unsaid: list[AgentMessage]
    past: Past
    interrupted: Interrupted | None
    forked_from: dict[str, Any]
    model: str = ""

    @property
    def variables(self) -> dict[str, str]:
        """The variables after its last cell, name to type."""
        cells = self.past.recorded.before[0].recorded.cells.values()
        reports = [cell.result.report.variables for cell in cells if cell.result is not None]
        return reports[-1] if reports else {}


def read_conversation(
    agent: type, path: str | Path, overrides: Mapping[str, Any], trust: Trust = False
) -> RecordedConversation:
    """Read the log of an agent.

    Args:
        agent: the class that continues it.
        path: the log, or its notebook in the same folder.
        overrides: arguments of the agent that replace recorded ones.
        trust: as of `RLM.resume`.

    Raises:
        RecordingError: it is not the log of an agent, or something is missing.
    """
    recording = read_log(path)
    about = recording.metadata.get("agent")
    if not isinstance(about, dict):
        raise RecordingError(f"{recording.path.name} is the log of one completion: RLM.resume(path) continues it.")
    recording = admitted(recording, Use(models=True, given=overrides), trust)
    check_is_whole(recording, overrides)
    first_context = context_store.decode(*context_store.load(recording.context, recording.path.parent))
    if not isinstance(first_context, dict):
        raise RecordingError(f"{recording.path.name} was altered: the context of an agent is a dict.")
    whole = tuple(_with_context(events_of_log(recording.path), first_context))
    try:
        memory, unsaid = _memory(whole, first_context, str(about.get("agent_id")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordingError(f"{recording.path.name} was altered: a message of it cannot be read ({error}).") from error
    begins = max((at for at, event in enumerate(whole) if isinstance(event, events.MessageStarted)), default=0)
    interrupted = _interrupted(first_context, whole, begins)
    closed = whole if interrupted is None else (*whole, _cut_short(whole))
    arguments = _arguments(recording, overrides, agent)
    forked_from = {"run_id": recording.stem, "log": str(recording.path), "at": None}
    past = _past(first_context, closed, ())
    model = "" if {"backend", "backend_kwargs"} & overrides.keys() else _latest_model(whole)
    return RecordedConversation(arguments, memory, first_context, unsaid, past, interrupted, forked_from, model)


def _latest_model(recorded: Sequence[Event]) -> str:
    """The model of the latest message, if another one answered before."""
    models = [event.model for event in recorded if isinstance(event, events.MessageStarted) and event.model]
    return models[-1] if models else ""


def _with_context(recorded: Sequence[Event], context: dict[str, Any]) -> list[Event]:
    """The events of a conversation that may be continued: without its end, and with its context."""
    return [
        replace(event, context=context) if isinstance(event, events.RunStarted) else event
        for event in recorded
        if not isinstance(event, events.RunFinished | events.RunFailed)
    ]


def _interrupted(context: dict[str, Any], whole: tuple[Event, ...], begins: int) -> Interrupted | None:
    """The last message, if it has no end and its kernel had taken it."""
    started, run = whole[begins], whole[begins:]
    taken = any(isinstance(e, events.CellFinished) and e.result.code == TAKE_MESSAGE for e in run)
    ended = any(isinstance(e, events.MessageFinished) for e in run)
    if ended or not taken or not isinstance(started, events.MessageStarted):
        return None
    return Interrupted(started.text, _past(context, whole[:begins], run))


def _past(context: dict[str, Any], before: tuple[Event, ...], own: tuple[Event, ...]) -> Past:
    run = Trajectory(before)
    recorded = recorded_run_of(Trajectory(own))
    recorded.seconds = 0.0
    last = max((cell.number for cell in run.cells), default=0)
    recorded.before = (PriorRun(context, [], run.histories(), recorded_run_of(run), last),)
    return Past(before, recorded, sum_paid(run.spending()))


def _cut_short(whole: tuple[Event, ...]) -> Event:
    turn = max(getattr(event, "iteration", 0) for event in whole)
    error = asyncio.CancelledError.__name__
    return events.MessageFinished(time=whole[-1].time, iteration=turn, answer=None, error=f"{error}: {CUT_SHORT}")


def _memory(
    recorded: Sequence[Event], first_context: dict[str, Any], agent_id: str
) -> tuple[AgentContext, list[AgentMessage]]:
    """The memory of the agent at the end of its record, and the messages that its kernel has not taken."""
    memory, unsaid = AgentContext(agent_id), list[AgentMessage]()
    memory.context_data.update(first_context)
    for event in recorded:
        match event:
            case events.ToolCalled(call=call, outcome=outcome) if call.tool == NEXT_MESSAGE and not outcome.error:
                news = json_text.loads(outcome.text)
                unsaid.clear()
                if news["reset"]:
                    memory.context_data.clear()
                memory.context_data.update(news["context"])
                memory.take_over([message_of(message) for message in news["history"]], anew=news["reset"] is True)
            case events.ToolCalled(call=call, outcome=outcome) if call.tool == KEEP and not outcome.error:
                memory.add_context(*call.args)
            case events.MessageFinished(answer=str(answer)):
                unsaid.append(message_of({"role": "assistant", "content": answer}))
    memory.take_over(unsaid)
    return memory, unsaid


def _arguments(recording: Recording, overrides: Mapping[str, Any], agent: type) -> dict[str, Any]:
    """The arguments of the agent. Functions of the record are left out: they are given again."""
    arguments = arguments_of(recording, overrides, agent)
    for name in ("persistent", "depth"):
        arguments.pop(name, None)
    budget = arguments.pop("max_budget", None)
    if "max_cost" not in overrides:
        arguments["max_cost"] = budget
    if "environment_kwargs" not in overrides:
        options = arguments.get("environment_kwargs") or {}
        arguments["environment_kwargs"] = {**options, "place": arguments.get("environment", "local")}
    if "custom_tools" not in overrides:
        tools = arguments.pop("custom_tools", {})
        kept = {name: tool for name, tool in tools.items() if name not in OWN_NAMES and not _is_function(tool)}
        arguments["custom_tools"] = kept
    return {**arguments, "environment": AGENT}


def _is_function(tool: Any) -> bool:
    return isinstance(tool, Mapping) and callable(tool["tool"])
